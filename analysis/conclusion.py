"""Verdict, report and figures of a sweep, made in a process of its own: they read all points, and the driver's memory
does not grow with them."""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landsweep.workers.errors import ExecutionError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection

    import pandas as pd


NICENESS = 10
#: What answering imports, one thing when it is needed: seconds in all.
NEEDED = (
    "landsweep.analysis.report", "landsweep.analysis.sweep", "matplotlib.backends.backend_agg", "matplotlib.figure",
    "scipy.stats", "statsmodels.stats.multitest", "statsmodels.stats.proportion",
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What a sweep says."""

    verdict: dict[str, Any]  # of Verdict.as_dict
    summary: str
    report: bytes  # HTML


class Concluder:
    """The process that answers: it comes up once it is started, or asked, and ends with the block."""

    def __init__(self) -> None:
        self._process: Any = None
        self._connection: Connection | None = None

    def __enter__(self) -> Concluder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()

    def start(self) -> None:
        """Let it come up beside other work. Of the main thread, as signals are."""
        context = multiprocessing.get_context("spawn")  # nothing of the driver's is shared, Ray least of all
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process inherits that: Ctrl-C is for the driver
        try:
            self._process.start()
        finally:
            signal.signal(signal.SIGINT, interrupt)
            theirs.close()

    def ask(self, uri: str, options: Mapping[str, Any], figures: Path | None) -> Answer:
        """The answer of the sweep at ``uri``, once; ``figures``: where to write a folder of files a configuration.

        Raises what reading and writing raise, and ExecutionError where the process ends without an answer.
        """
        if self._connection is None:
            self.start()
        assert self._connection is not None
        try:
            self._connection.send((uri, dict(options), figures))
            answer = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            raise ExecutionError(
                f"{uri}: the process that makes verdict and report ended with exit code {self._process.exitcode} (-9: "
                "killed, as where memory runs out); every trial is committed, and the same command makes them"
            ) from None
        if isinstance(answer, Answer):
            return answer
        raise answer


def conclude(uri: str, options: Mapping[str, Any], figures: Path | None) -> Answer:
    """:meth:`Concluder.ask` of a process that is started for it."""
    with Concluder() as concluder:
        return concluder.ask(uri, options, figures)


def _serve(connection: Connection) -> None:
    """Answer the one request that comes, if it comes. What comes up meanwhile goes first."""
    os.nice(NICENESS)
    gc.disable()  # imports make no garbage, and looking for it takes a third of their time
    for name in NEEDED:
        importlib.import_module(name)
    gc.freeze()
    gc.enable()
    try:
        asked = connection.recv()
    except EOFError:
        return
    try:
        connection.send(_made(*asked))
    except Exception as error:
        connection.send(error)


def _made(uri: str, options: dict[str, Any], figures: Path | None) -> Answer:
    from landsweep.analysis import sweep as results

    sweep = results.open(uri)
    verdict = sweep.verdict(**options)
    points = sweep.points()
    with tempfile.TemporaryDirectory() as folder:
        report = sweep.report(Path(folder) / "report.html", verdict, points).read_bytes()
    if figures is not None:
        _draw(points, verdict.metric, figures)
    return Answer(verdict.as_dict(), verdict.summary(), report)


def _draw(points: pd.DataFrame, metric: str, folder: Path) -> None:
    """For each configuration its points as Parquet and its metric against the objective as PNG."""
    from matplotlib.figure import Figure

    from landsweep.analysis import plots

    for config, rows in points.groupby("config"):
        own = folder / str(config)
        own.mkdir()
        figure = Figure(figsize=(6, 4), layout="constrained")
        plots.loss_against_objective(rows, figure.add_subplot(), metric)
        figure.savefig(own / f"{metric}.png", dpi=100)
        rows.to_parquet(own / "points.parquet", index=False)
