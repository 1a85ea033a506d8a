"""HTML in small pieces: everything that is text is escaped here, and nothing is fetched from anywhere."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Inches: narrow enough that the text stays readable when the figure is 350 pixels wide.
_SIZE = (5.2, 3.7)
_DPI = 170

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5b6168; --line: #d5d9de; --paper: #ffffff; --card: #f5f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #a5acb5; --line: #3c4249; --paper: #16181b; --card: #202327; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
p.word { font-size: 1.3rem; font-weight: 600; margin: .3rem 0; }
p, li, figcaption { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
pre { background: var(--card); padding: .8rem; border-radius: 6px; font-size: .8rem; overflow-x: auto; }
pre.wrap { white-space: pre-wrap; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
figure { margin: .6rem 0; min-width: 0; }
figure img { display: block; width: 100%; max-width: 44rem; height: auto; background: #fff; border-radius: 6px; }
figcaption { color: var(--soft); font-size: .85rem; margin-top: .3rem; }
code { font-size: .9em; }
"""


def document(title: str, body: Sequence[str]) -> str:
    """One page; the policy forbids it every request."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    """The page's title."""
    return f"<h1>{escape(text)}</h1>"


def section(title: str, *parts: str) -> str:
    """A heading and what is under it."""
    return "\n".join([f"<section>\n<h2>{escape(title)}</h2>", *parts, "</section>"])


def paragraph(text: str, kind: str = "") -> str:
    """One paragraph of plain text."""
    mark = f' class="{kind}"' if kind else ""
    return f"<p{mark}>{escape(text)}</p>"


def preformatted(text: str, *, wrap: bool = False) -> str:
    """Text verbatim."""
    mark = ' class="wrap"' if wrap else ""
    return f"<pre{mark}>{escape(text)}</pre>"


def rows_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table that scrolls in its own box."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell(value))}</td>" for value in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def cell(value: Any) -> str:
    """A table's cell: six digits, a dash for what is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def figure(draw: Callable[[Axes], None], alt: str, caption: str, call: str, height: float = _SIZE[1]) -> str:
    """What ``draw`` puts on an Axes as an inline PNG, with its caption and the call that gives its data."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(_SIZE[0], height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(canvas)
    draw(canvas.subplots())
    target = io.BytesIO()
    canvas.savefig(target, format="png", bbox_inches="tight", pad_inches=0.12, metadata={"Software": None})
    data = base64.b64encode(target.getvalue()).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape(alt)}">\n'
        f"<figcaption>{escape(caption)} <code>{escape(call)}</code></figcaption></figure>"
    )
