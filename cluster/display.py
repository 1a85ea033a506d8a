"""A sweep's state for people: plain lines, or a view that stays in place on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from landsweep.cluster.printable import printable
from landsweep.cluster.status import Status

if TYPE_CHECKING:
    from rich.console import Group

MOST_NODES = 10  # that the view lists


def line(status: Status) -> str:
    """One line: ``toy: 4/8 trials, 1 failed (ValueError 1), 2.5 a second, 12 s, about 2 s left, cost 0.10``."""
    parts = [f"{status.sweep}: {status.done}/{status.total} trials"]
    if status.failed:
        parts.append(f"{status.failed} failed ({_failures(status)})")
    if status.trials_per_second:
        parts.append(f"{status.trials_per_second:.3g} a second")
    if status.elapsed_seconds is not None:
        parts.append(duration(status.elapsed_seconds))
    if status.eta_seconds is not None and status.left:
        parts.append(f"about {duration(status.eta_seconds)} left")
    if status.cost is not None:
        parts.append(f"cost {status.cost:.2f}")
    return printable(", ".join(parts))


def _failures(status: Status) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(status.failures.items()))


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(7.4), duration(125), duration(7260), duration(200000)
    ('7 s', '2 min 5 s', '2 h 1 min', '2 d 7 h')
    """
    whole = round(seconds)
    for unit, name, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // below} {small}"
    return f"{whole} s"


def lines(say: Callable[[str], None]) -> Callable[[Status], None]:
    """Say a line whenever trials were committed, at most one a second, and later one a hundredth of the run's age."""
    last = {"time": float("-inf"), "done": -1.0}

    def show(status: Status) -> None:
        age = status.elapsed_seconds or 0.0
        due = status.time - last["time"] >= max(1.0, 0.01 * age) or status.state != "running"
        if status.done != last["done"] and due:
            last.update(time=status.time, done=status.done)
            say(line(status))

    return show


@contextmanager
def live() -> Iterator[Callable[[Status], None]]:
    """A view on the terminal that follows the sweep."""
    from rich.live import Live

    with Live(refresh_per_second=4) as view:
        yield lambda status: view.update(panel(status))


def panel(status: Status) -> Group:
    """Bar, line, and a table of the nodes."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    parts: list[ProgressBar | Text | Table] = [ProgressBar(total=status.total, completed=status.done, width=60)]
    parts.append(Text(line(status)))
    parts.append(Text(f"{status.running} batches out, {status.retried} retried"))
    if len(status.nodes) > 1:
        table = Table("node", "trials a second", box=None, pad_edge=False)
        busiest = sorted(status.nodes.items(), key=lambda node: -node[1])
        for name, rate in busiest[:MOST_NODES]:
            table.add_row(Text(printable(name)), f"{rate:.3g}")
        parts.append(table)
        if len(busiest) > MOST_NODES:
            parts.append(Text(f"… {len(busiest) - MOST_NODES} more nodes"))
    return Group(*parts)
