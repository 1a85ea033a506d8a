"""The report is one file that needs nothing else, says what it shows, escapes all; the figures draw the given data."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from landsweep.analysis import plots
from landsweep.analysis.report import write_report
from landsweep.analysis.verdict import verdict
from landsweep.workers.errors import QueryError, RequestError
from landsweep.workers.record import KINDS, schema

NASTY = "<script>alert('x')</script> & \"quoted\""


def sweep(n: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    frames = []
    for config, width in (("aaaa", 10.0), ("bbbb", 25.0)):
        frame = pd.DataFrame({name: pd.Series([None] * n, dtype=object) for name in schema("points").names})
        frame = frame.assign(sweep="s", config=config, seed=range(n), source="training", kind="minimum", index=0)
        frame["trial"] = [f"{config}-{k}" for k in range(n)]
        frame["point"] = [f"{config}-{k}-training-0" for k in range(n)]
        frame["objective"] = [0.1, 0.5] * (n // 2)
        frame["test_loss"] = rng.normal(0.3, 0.005, n)
        frame["spectrum"] = [[-0.0, 1e-3, 2.0, 50.0 + k] for k in range(n)]
        frame["landscape.hidden"] = width
        frames.append(frame)
    points = pd.concat(frames, ignore_index=True)
    points.loc[0, "kind"], points.loc[0, "reason"] = "diverged", NASTY
    points.loc[1, "kind"], points.loc[1, "index"] = "saddle", 2
    points["spectrum"] = [points["spectrum"][0], [-3.0, -1e-4, 1.0, 2.0], *points["spectrum"][2:]]
    return points


TRIALS = pd.DataFrame(
    {"trial": ["aaaa-99"], "config": ["aaaa"], "attempt": [2], "status": ["failed"], "error": [NASTY + "\ntrace"]}
)


def written(path: Path, **changes: Any) -> str:
    points = changes.pop("points", sweep())
    given = {"name": "demo", "points": points, "trials": TRIALS, "spectra": None, "sweep_text": "name: demo\n"}
    given["verdict"] = verdict(points, trials=TRIALS, resamples=50)
    target = path / "deep" / "report.html"
    assert write_report(target, **{**given, **changes}) == target
    return target.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Tags in order, with the open ones around each, and a check that all close."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[tuple[str, dict[str, str | None]]] = []
        self.seen: list[tuple[str, dict[str, str | None], list[tuple[str, dict[str, str | None]]]]] = []
        self.words = ""
        self.feed(text)
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs), list(self.stack)))
        if tag not in self.VOID:
            self.stack.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_report_stands_alone(tmp_path: Path) -> None:
    text = written(tmp_path)
    page = Page(text)
    tags = {tag for tag, *_ in page.seen}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    images = [attrs for tag, attrs, _ in page.seen if tag == "img"]
    assert len(images) == 9
    for attrs in images:
        assert (attrs["src"] or "").startswith("data:image/png;base64,")
        assert attrs["alt"]
        assert base64.b64decode((attrs["src"] or "").partition(",")[2]).startswith(b"\x89PNG")
    bare = re.sub(r"base64,[^\"]+", "", text)
    assert not re.search(r"https?://|//cdn|url\(|@import|\son\w+=", bare)
    assert "default-src 'none'" in text


def test_the_report_fits_narrow_screens_and_dark_rooms(tmp_path: Path) -> None:
    text = written(tmp_path)
    assert "prefers-color-scheme: dark" in text
    assert 'content="width=device-width, initial-scale=1"' in text
    tables = [around for tag, _, around in Page(text).seen if tag == "table"]
    assert len(tables) >= 3
    assert all(around[-1] == ("div", {"class": "scroll"}) for around in tables)
    assert re.search(r"\.scroll \{ overflow-x: auto; max-width: 100%", text)
    assert re.search(r"figure img \{[^}]*width: 100%;[^}]*height: auto", text)


def test_the_report_holds_what_the_tables_hold(tmp_path: Path) -> None:
    points = sweep()
    found = verdict(points, trials=TRIALS, resamples=50)
    words = Page(written(tmp_path, sweep_text=f"name: demo\n# {NASTY}\n")).words
    assert found.summary() in words
    assert f"name: demo\n# {NASTY}\n" in words
    assert f"diverged: {NASTY}" in words
    assert "3 of 61 trials." in words
    for title in (
        "Verdict",
        "Points by kind",
        "Figures",
        "Configurations",
        "Saddles by searcher",
        "Excluded trials",
        "Sweep file",
    ):
        assert title in words
    assert "landscape.hidden" in words
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", written(tmp_path), re.S)
    assert len(captions) == 9
    assert all(re.search(r"n = \d+", caption) and "landsweep.open(SWEEP)." in caption for caption in captions)


def test_every_text_is_escaped(tmp_path: Path) -> None:
    points = sweep().rename(columns={"landscape.hidden": f"landscape.{NASTY}"})
    points["config"] = points["config"] + NASTY
    text = written(tmp_path, name=NASTY, points=points, sweep_text=NASTY)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 8
    Page(text)


@pytest.mark.parametrize("points", [sweep().iloc[:0], sweep().assign(test_loss=None, spectrum=None, index=None)])
def test_empty_tables_make_a_report_too(tmp_path: Path, points: pd.DataFrame) -> None:
    words = Page(written(tmp_path, points=points, trials=None)).words
    assert "inconclusive" in words


def test_full_spectra_are_drawn_where_there_are_some(tmp_path: Path) -> None:
    spectra = pd.DataFrame({"point": sweep()["point"].iloc[:7], "eigenvalues": [[0.1, 2.0]] * 7})
    assert "n = 7 full spectra" in written(tmp_path, spectra=spectra)


def test_the_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = written(tmp_path)

    def refuse(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(RequestError, match="no space left"):
        written(tmp_path, name="other")
    assert (tmp_path / "deep" / "report.html").read_text(encoding="utf-8") == text
    assert [item.name for item in (tmp_path / "deep").iterdir()] == ["report.html"]


# --- figures ----------------------------------------------------------------------------------------------------------


def test_bars_are_the_counts() -> None:
    ax = Figure().subplots()
    plots.kind_counts(sweep(), ax)
    widths = {str(bars.get_label()): [bar.get_width() for bar in bars] for bars in ax.containers}
    assert widths == {"minimum": [28, 30], "saddle": [1, 0], "diverged": [1, 0]}
    assert "n = 60" in ax.get_title()


def test_scatters_hold_every_finite_point_in_its_colour() -> None:
    points = sweep()
    points.loc[2, "test_loss"] = np.nan
    ax = Figure().subplots()
    plots.loss_against_objective(points, ax, "test_loss")
    drawn = {str(dots.get_label()): dots for dots in ax.collections}
    assert {name: len(np.asarray(dots.get_offsets())) for name, dots in drawn.items()} == {
        "minimum": 57,
        "saddle": 1,
        "diverged": 1,
    }
    colour = np.asarray(drawn["saddle"].get_facecolor())[0].tolist()
    assert to_hex((colour[0], colour[1], colour[2])).upper() == plots.COLOURS["saddle"]
    assert "n = 59" in ax.get_title()
    other = Figure().subplots()
    plots.index_against_objective(points, other)
    saddle = next(dots for dots in other.collections if dots.get_label() == "saddle")
    assert np.asarray(saddle.get_offsets()).tolist() == [[2.0, 0.5]]


def test_each_kinds_spectrum_sums_to_one() -> None:
    ax = Figure().subplots()
    plots.spectra(sweep(), ax)
    shares = {str(patch.get_label()): patch.get_data().values for patch in ax.patches}  # type: ignore[attr-defined]
    assert set(shares) == {"minimum", "saddle", "diverged"}
    assert all(sum(values) == pytest.approx(1.0) for values in shares.values())
    assert ax.get_xscale() == "symlog"
    with pytest.raises(QueryError, match="spectrum"):
        plots.spectra(pd.DataFrame({"kind": ["minimum"]}), Figure().subplots())


def test_intervals_are_the_verdicts() -> None:
    found = verdict(sweep(), resamples=50)
    ax = Figure().subplots()
    plots.verdict_interval(found, ax)
    ends = [tuple(np.asarray(line.get_xdata()).tolist()) for line in ax.lines[1:3]]
    assert ends == [(found.diff_low, found.diff_high), (found.ci_low, found.ci_high)]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["all", "aaaa", "bbbb"]
    assert "n = 58" in ax.get_title()
    empty = Figure().subplots()
    plots.verdict_interval(verdict(sweep().iloc[:0]), empty)
    assert "no estimate" in [text.get_text() for text in empty.texts]


def test_importing_the_analysis_loads_no_heavy_library() -> None:
    heavy = "('matplotlib', 'scipy', 'statsmodels', 'torch', 'ray')"
    code = f"import sys, landsweep.analysis.report; print([name for name in {heavy} if name in sys.modules])"
    root = Path(__file__).parents[1]
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert shown.stdout.strip() == "[]"


def test_every_kind_has_a_colour_of_its_own() -> None:
    assert list(plots.COLOURS) == list(KINDS)
    assert len(set(plots.COLOURS.values())) == len(KINDS)
