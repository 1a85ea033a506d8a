"""Verdict, report and figures of a sweep, made in a process of its own: they read all points, and the driver's memory
does not grow with them."""

from __future__ import annotations

import multiprocessing
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


@dataclass(frozen=True)
class Answer:
    """What a sweep says."""

    verdict: dict[str, Any]  # of Verdict.as_dict
    summary: str
    report: bytes  # HTML


def conclude(uri: str, options: Mapping[str, Any], figures: Path | None) -> Answer:
    """The answer of the sweep at ``uri``; ``figures``: where to write a folder of files for each configuration.

    Raises what reading and writing raise, and ExecutionError where the process ends without an answer.
    """
    context = multiprocessing.get_context("spawn")  # nothing of the driver's is shared, Ray least of all
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, uri, dict(options), figures), daemon=True)
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process inherits that: Ctrl-C is for the driver
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, interrupt)
        sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        process.join()
        raise ExecutionError(
            f"{uri}: the process that makes verdict and report ended with exit code {process.exitcode} (-9: killed, as "
            "where memory runs out); every trial is committed, and the same command makes them"
        ) from None
    finally:
        receiver.close()
        process.kill()
        process.join()
    if isinstance(answer, Answer):
        return answer
    raise answer


def _answer(sender: Connection, uri: str, options: dict[str, Any], figures: Path | None) -> None:
    try:
        sender.send(_made(uri, options, figures))
    except Exception as error:
        sender.send(error)


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
