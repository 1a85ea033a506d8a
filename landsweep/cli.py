"""The command line. Exit 0 done, 1 something failed while running, 2 the request was wrong, 130 interrupted."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from gc import freeze, set_threshold
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec, TypeVar

import typer

from landsweep.workers.errors import LandsweepError, QueryError, RequestError, SweepFileError

if TYPE_CHECKING:
    from landsweep.analysis.conclusion import Concluder
    from landsweep.cluster.early import Early
    from landsweep.cluster.observe import Show
    from landsweep.cluster.prepare import Plan
    from landsweep.cluster.ray_adapter import JobClient
    from landsweep.cluster.run import Progress
    from landsweep.cluster.spec import Sweep
    from landsweep.cluster.tracker import Tracker

app = typer.Typer(
    help="Sweep training seeds, find the minima and saddles they reach, and test whether they generalise alike.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
#: New objects from which on garbage is looked for; Python's own 700 take a third of the time that torch's import takes.
COLLECTED = 50_000, 20, 20
P = ParamSpec("P")
R = TypeVar("R")

SweepFile = Annotated[str, typer.Argument(help="sweep file", metavar="SWEEP.yaml")]
Location = Annotated[str, typer.Argument(help="results (<store>/<name>) or sweep file", metavar="SWEEP")]
Store = Annotated[str | None, typer.Option(help="replace the file's store")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="dotted.key=value, replaces a value of the file; repeatable")
]
Json = Annotated[bool, typer.Option("--json", help="print JSON, for programs")]
Address = Annotated[str | None, typer.Option(envvar="RAY_ADDRESS", help="the cluster's dashboard, http://HEAD:8265")]
JobId = Annotated[str | None, typer.Argument(help="a job's id; none: the latest", metavar="[ID]")]


class LogFormat(StrEnum):
    """What a run says while it runs."""

    text = "text"
    json = "json"  # on standard error


LogFormatOption = Annotated[LogFormat, typer.Option(envvar="LANDSWEEP_LOG", help="json: an event a line on stderr")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="write to this file instead")]


def main() -> None:
    """Run the command line; one message and an exit code for everything that goes wrong on purpose."""
    set_threshold(*COLLECTED)
    try:
        app()
    except SystemExit as ended:
        early = sys.modules.get("landsweep.cluster.early")
        if early and not early.settle():
            os._exit(ended.code if isinstance(ended.code, int) else 1)
        raise
    finally:
        freeze()  # Python's end would look through all of it several times


def command(name: str | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A verb. Errors of the tree become one message; an interruption exits 130."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except LandsweepError as error:
                _complain(str(error))
                raise typer.Exit(error.exit_code) from None
            except KeyboardInterrupt:
                _complain("interrupted; what is committed is kept, and the same command goes on from there")
                raise typer.Exit(130) from None
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(0) from None
            except OSError as error:
                from landsweep.cluster.files import EXHAUSTED

                _complain(f"{error}; mend that path, its permissions or the space left there")
                raise typer.Exit(1 if error.errno in EXHAUSTED else 2) from None

        app.command(name)(wrapped)
        return wrapped

    return decorate


def _say(text: str, err: bool = False, nl: bool = True) -> None:
    """Print. Names, paths and errors may be anybody's: what a terminal would obey is written out."""
    from landsweep.cluster.printable import printable

    typer.echo(printable(text), err=err, nl=nl)


def _complain(message: str) -> None:
    _say(f"landsweep: {message}", err=True)


def _version(asked: bool) -> None:
    if asked:
        from landsweep import __version__

        _say(f"landsweep {__version__}")
        raise typer.Exit(0)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    pass


# --- running -------------------------------------------------------------------------------------------------


@command()
def run(
    file: SweepFile,
    store: Store = None,
    address: Annotated[str | None, typer.Option(envvar="RAY_ADDRESS", help="Ray cluster; none: embedded")] = None,
    tracking_uri: Annotated[str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow; none: off")] = None,
    set_: Set = None,
    retry_failed: Annotated[bool, typer.Option(help="run failed trials again")] = False,
    log_format: Annotated[
        LogFormat, typer.Option(envvar="LANDSWEEP_LOG", help="json: an event a line")
    ] = LogFormat.text,
) -> None:
    """Run a sweep to completion, then its verdict, report and tracking. Running it again does only what is new."""
    from landsweep.cluster import early, prepare, spec
    from landsweep.cluster.control import check_submitter

    if address and address.startswith(("http://", "https://")):
        raise RequestError(
            f"--address: found {address!r}, the address that jobs are submitted to; "
            "`run` takes ray://HOST:10001, HOST:6379 or auto; hand the sweep over with `landsweep submit`"
        )
    check_submitter(os.environ)
    sweep = _load(file, store, tracking_uri, set_)
    for warning in spec.warnings(sweep):
        _complain(f"warning: {warning}")
    with early.workers(sweep, address) as ready:
        planned = prepare.prepare(sweep, retry_failed)
        for note in planned.notes:
            _complain(f"note: {note}")
        if not planned.batches:
            _say(f"{sweep.name}: all {planned.total} trials are done; no batch to run")
        with _tracked(planned) as tracker:
            _run(planned, address, tracker, log_format, ready)


@contextmanager
def _tracked(planned: Plan) -> Iterator[Tracker | None]:
    """Who logs the sweep, from its first batch on."""
    from landsweep.cluster import finish

    tracker = finish.tracker(planned)
    try:
        if tracker and planned.batches:
            tracker.start()
        yield tracker
    finally:
        if tracker:
            tracker.close()


def _run(
    planned: Plan, address: str | None, tracker: Tracker | None, log_format: LogFormat, ready: Early | None
) -> None:
    """Run what is left, then conclude."""
    from landsweep.analysis.conclusion import Concluder
    from landsweep.cluster import run as runs

    sweep = planned.sweep
    with Concluder() as concluder:
        if ready is not None:
            concluder.start()
        progress = _execute(planned, address, log_format, ready)
        if progress.stopped:
            left = planned.total - progress.done
            _say(f"{sweep.name}: stopped as asked; {progress.done} trials are committed, {left} left: run it again")
            runs.require_success(progress)
            return
        _conclude(planned, tracker, concluder)
    if progress.failed:
        runs.require_success(progress)


def _load(file: str, store: str | None, tracking_uri: str | None, set_: list[str] | None) -> Sweep:
    from landsweep.cluster import spec

    overrides: dict[str, str] = {}
    for item in set_ or []:
        key, separator, value = item.partition("=")
        if not separator:
            raise SweepFileError(f"--set: found {item!r}; write dotted.key=value, as in --set training.lr=0.1")
        overrides[key.strip()] = value
    if store is not None:
        overrides["store"] = json.dumps(store)
    if tracking_uri:
        overrides["tracking.uri"] = json.dumps(tracking_uri)
    return spec.load(file, overrides)


def _execute(planned: Plan, address: str | None, log_format: LogFormat, ready: Early | None) -> Progress:
    from landsweep.cluster import logs, ray_adapter
    from landsweep.cluster import run as runs
    from landsweep.cluster.observe import Observer

    def executor() -> Any:
        from landsweep.cluster.ray_executor import RayExecutor

        if ready is not None and (waiting := ready.take(planned)):
            return waiting
        resources = planned.sweep.resources
        shape, most = (resources.num_cpus, resources.num_gpus), len(planned.batches)
        made = RayExecutor(*shape, address, planned.store.uri, planned.data.nbytes, most)
        if address:
            observer.export = ray_adapter.exporter(planned.sweep.name)
        return made

    if log_format is LogFormat.json:
        logs.to_json()
    with _terminated_as_interrupt(), _shown(planned, log_format) as show:
        observer = Observer(planned, show)
        try:
            return runs.run(planned, executor, observer)
        finally:
            observer.end()


@contextmanager
def _terminated_as_interrupt() -> Iterator[None]:
    """SIGTERM ends a run like Ctrl-C: what is staged is gathered."""
    before = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _shown(planned: Plan, log_format: LogFormat) -> Iterator[Show]:
    """A live view on a terminal, plain lines otherwise; nothing beside structured logs."""
    from landsweep.cluster import display

    if not planned.batches or log_format is LogFormat.json:
        yield lambda status: None
        return
    _say(
        f"{planned.sweep.name}: {len(planned.configurations)} configurations, {planned.total} trials, "
        f"{planned.done} done; {len(planned.batches)} batches of at most {planned.size} trials to run"
    )
    if sys.stdout.isatty():
        with display.live() as show:
            yield show
        return
    yield display.lines(typer.echo)


def _conclude(planned: Plan, tracker: Tracker | None, concluder: Concluder) -> None:
    """Verdict, report and tracking; each only where it is not there yet."""
    from landsweep.cluster.finish import Conclusion

    conclusion = Conclusion(planned)
    summary = conclusion.known_summary()
    if summary is not None and not planned.batches:
        _say(summary)
        _say(f"report: {conclusion.report_path}")
        return
    with tempfile.TemporaryDirectory() as name:
        artifacts, wanted = Path(name), bool(tracker) and conclusion.wants_figures
        answer = concluder.ask(planned.store.uri, planned.sweep.verdict.model_dump(), artifacts if wanted else None)
        conclusion.store(answer.verdict, answer.summary, answer.report)
        _say(answer.summary)
        _say(f"report: {conclusion.report_path}")
        failure = conclusion.track(tracker, artifacts)
    if failure:
        _complain(f"warning: {failure}")


@command()
def plan(file: SweepFile, store: Store = None, set_: Set = None, as_json: Json = False) -> None:
    """What a run would do: configurations, trials, batches done and left, parameters, memory."""
    from landsweep.analysis.verdict import VerdictOptions
    from landsweep.cluster import prepare, spec

    sweep = _load(file, store, None, set_)
    for warning in spec.warnings(sweep):
        _complain(f"warning: {warning}")
    planned = prepare.prepare(sweep)
    for note in planned.notes:
        _complain(f"note: {note}")
    shapes = prepare.shapes(planned.configurations, planned.data)
    facts = {
        "sweep": sweep.name,
        "location": planned.store.uri,
        "configurations": len(planned.configurations),
        "trials": planned.total,
        "trials_done": planned.done,
        "trials_left": planned.left,
        "batches_left": len(planned.batches),
        "trials_per_batch": planned.size,
        "parameters": sorted({n for n, _ in shapes}),
        "batch_memory_bytes": planned.batch_bytes,
        "seconds_left": planned.seconds_left(),
        "cost_left": planned.cost_left(),
        "margin": VerdictOptions(**sweep.verdict.model_dump(mode="json")).chosen_margin,
        "trials_for_margin": _trials_for_margin(planned),
    }
    if as_json:
        _say(json.dumps(facts, indent=2))
        return
    if planned.batch_bytes is not None:
        allowed = f"predicted, {sweep.resources.memory / 2**20:,.0f} MiB allowed"
        facts["batch_memory_bytes"] = f"{planned.batch_bytes / 2**20:,.0f} MiB {allowed}"
    facts["trials_for_margin"] = f"{facts['trials_for_margin']} ({_SUPPOSED})"
    facts = {key: value for key, value in facts.items() if value is not None}
    width = max(map(len, facts))
    for key, value in facts.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else value
        _say(f"{key.replace('_', ' '):{width}}  {text}")


_SUPPOSED = "80 % power, if the metric's standard deviation is the margin and half the minima are local"


def _trials_for_margin(planned: Plan) -> int | None:
    """How many trials equivalence within the margin needs, before anything is known of the spread."""
    from landsweep.analysis.power import trials_for
    from landsweep.analysis.verdict import VerdictOptions

    options = VerdictOptions(**planned.sweep.verdict.model_dump(mode="json"))
    margin, count = options.chosen_margin, len(planned.configurations)
    return trials_for(margin, margin, 0.5, configurations=count, alpha=options.alpha)


# --- jobs of a cluster ---------------------------------------------------------------------------------------


def _client(address: str | None) -> JobClient:
    """The jobs of the cluster at ``address``, with its token."""
    from landsweep.cluster import authentication
    from landsweep.cluster.ray_adapter import JobClient

    url = authentication.job_address(address)
    warning = authentication.authenticate(url, os.environ)
    if warning:
        _complain(f"warning: {warning}")
    return JobClient(url)


@command()
def submit(
    file: SweepFile,
    store: Store = None,
    address: Address = None,
    tracking_uri: Annotated[str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow; none: off")] = None,
    set_: Set = None,
    retry_failed: Annotated[bool, typer.Option(help="run failed trials again")] = False,
    as_json: Json = False,
) -> None:
    """Hand a sweep to a Ray cluster as a job and print its id. Doing it twice is harmless: a live job is printed."""
    from landsweep.cluster import jobs

    sweep = _load(file, store, tracking_uri, set_)
    found = jobs.submit(_client(address), sweep, retry_failed)
    if found.note:
        _complain(f"note: {found.note}")
    if as_json:
        _say(json.dumps({"id": found.id, "new": found.new, "note": found.note}, indent=2))
        return
    _say(found.id if found.new else f"{found.id} is live already")


@command()
def status(id: JobId = None, address: Address = None, as_json: Json = False) -> None:
    """How a submitted sweep stands. Once it has ended, exits as `landsweep run` would have."""
    import time

    from landsweep.cluster import job_report, jobs

    facts = job_report.facts(jobs.find(_client(address), id), time.time())
    if as_json:
        _say(json.dumps(facts, indent=2))
    else:
        for line in job_report.lines(facts):
            _say(line)
    raise typer.Exit(facts["exit_code"])


@command()
def logs(
    id: JobId = None,
    address: Address = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="go on until the job ends")] = False,
) -> None:
    """What a submitted sweep's driver printed."""
    import asyncio

    from landsweep.cluster import jobs

    client = _client(address)
    job = jobs.find(client, id)
    if not follow:
        _say(client.logs(job.id), nl=False)
        return

    async def tail() -> None:
        async for text in client.follow(job.id):
            _say(text, nl=False)

    asyncio.run(tail())


@command()
def stop(id: JobId = None, address: Address = None) -> None:
    """Have a submitted sweep start no other batch; those that run end and are committed."""
    from landsweep.cluster import jobs

    client = _client(address)
    _say(jobs.stop(client, jobs.find(client, id)))


@command()
def cancel(id: JobId = None, address: Address = None) -> None:
    """End a submitted sweep at once. What is committed is kept."""
    from landsweep.cluster import jobs

    client = _client(address)
    _say(jobs.cancel(client, jobs.find(client, id)))


# --- reading -------------------------------------------------------------------------------------------------


def _location(text: str) -> str:
    """A results location, from itself or from a sweep file."""
    if text.endswith((".yaml", ".yml")) and Path(text).is_file():
        from landsweep.cluster import prepare, spec

        return prepare.location(spec.load(text))
    return text


@command("list")
def list_(
    store: Annotated[str, typer.Argument(help="a store", metavar="STORE")] = "./runs", as_json: Json = False
) -> None:
    """The sweeps of a store, with their progress."""
    from landsweep.cluster.progress import sweeps

    rows = sweeps(store)
    if as_json:
        _say(json.dumps(rows, indent=2))
        return
    if not rows:
        _say(f"no sweeps in {store}")
    for row in rows:
        failed = f", {row['failed']} failed" if row["failed"] else ""
        where = f"{row['configurations']} configurations"
        _say(f"{row['name']}: {row['done']}/{row['trials']} trials in {where}{failed}")


@command()
def points(
    sweep: Location,
    kind: Annotated[str | None, typer.Option(help="only this kind; several: a,b")] = None,
    where: Annotated[str | None, typer.Option(help="column op literal [and …]")] = None,
    columns: Annotated[str | None, typer.Option(help="these columns, a,b,c")] = None,
    format_: Annotated[str | None, typer.Option("--format", help="table, csv, json or parquet")] = None,
    as_json: Json = False,
    output: Output = None,
) -> None:
    """The points of a sweep."""
    import landsweep

    chosen = _format("json" if as_json else format_, output)
    wanted = [c.strip() for c in columns.split(",")] if columns else None
    kinds = [k.strip() for k in kind.split(",")] if kind else None
    frame = landsweep.open(_location(sweep)).points(wanted, where, kinds)
    if chosen == "parquet":
        if output is None:
            raise RequestError("--format parquet: found no file to write; name one with -o points.parquet")
        frame.to_parquet(output, index=False)
    elif chosen == "csv":
        _put(frame.to_csv(index=False), output)
    elif chosen == "json":
        _put(frame.to_json(orient="records", lines=False, double_precision=15), output)
    else:
        _put(_table(frame, wanted), output)


def _format(asked: str | None, output: Path | None) -> str:
    formats = ("table", "csv", "json", "parquet")
    if asked is None and output is not None:
        asked = output.suffix.lstrip(".")
    asked = asked or "table"
    if asked not in formats:
        raise RequestError(f"--format: found {asked!r}; allowed are {', '.join(formats)}")
    return asked


def _table(frame: Any, wanted: list[str] | None) -> str:
    short = ["config", "seed", "source", "kind", "index", "objective", "test_loss", "grad_norm", "class_id"]
    shown = frame if wanted else frame[[name for name in short if name in frame.columns]]
    return str(shown.to_string(index=False, max_rows=200)) + f"\n{len(frame)} points"


def _put(text: str, output: Path | None) -> None:
    if output is None and sys.stdout.isatty():
        _say(text)
    elif output is None:
        typer.echo(text)  # for programs: as it is
    else:
        output.write_text(text if text.endswith("\n") else text + "\n")


@command()
def verdict(
    sweep: Location,
    metric: Annotated[str | None, typer.Option(help="the column that is compared")] = None,
    margin: Annotated[float | None, typer.Option(help="the largest difference that does not matter")] = None,
    band: Annotated[float | None, typer.Option(help="objective above the reference that counts as global")] = None,
    alpha: Annotated[float | None, typer.Option(help="level")] = None,
    reference: Annotated[float | None, typer.Option(help="objective of the global minimum")] = None,
    as_json: Json = False,
) -> None:
    """Do local minima generalise like global ones?"""
    import landsweep

    options = {"metric": metric, "margin": margin, "band": band, "alpha": alpha, "reference": reference}
    asked = {name: value for name, value in options.items() if value is not None}
    answer = landsweep.open(_location(sweep)).verdict(True, **asked)
    _say(answer.to_json() if as_json else answer.summary())


@command()
def report(sweep: Location, output: Output = None) -> None:
    """Write a sweep's report: one self-contained HTML file."""
    import landsweep

    opened = landsweep.open(_location(sweep))
    _say(str(opened.report(output or Path(f"{opened.name}-report.html"))))


@command()
def landscapes(as_json: Json = False) -> None:
    """The built-in landscapes and their settings."""
    from landsweep.cluster.settings import LANDSCAPES

    found = {name: model.model_json_schema()["properties"] for name, model in LANDSCAPES.items()}
    if as_json:
        _say(json.dumps(found, indent=2))
        return
    for name, settings in found.items():
        _say(f"{name}: {(LANDSCAPES[name].__doc__ or '').strip()}")
        for key, value in settings.items():
            _say(f"  {key} = {json.dumps(value.get('default'))}: {value.get('description', '')}")


@command()
def study(
    name: Annotated[str, typer.Argument(help="self-check: searches and classification where the truth is known")],
    starts: Annotated[int, typer.Option(min=1, help="starting points a landscape")] = 100,
    as_json: Json = False,
) -> None:
    """Run an experiment whose outcome is known and compare. Exit 1 where something is not as it should be."""
    from rich.console import Console
    from rich.table import Table

    from landsweep.cluster import study as studies

    rows = []
    for row in studies.study(name, starts):
        rows.append(row)
        if not as_json:
            _say(f"{row['landscape']}: {row['seconds']:.0f} s", err=True)
    if as_json:
        _say(json.dumps(rows, indent=2))
    else:
        table = Table(*(key.replace("_", " ") for key in rows[0]))
        for row in rows:
            table.add_row(*(f"{value:.0f}" if isinstance(value, float) else str(value) for value in row.values()))
        Console(width=None if sys.stdout.isatty() else 200).print(table)
    failures = studies.failures(rows)
    for failure in failures:
        _complain(failure)
    if failures:
        raise typer.Exit(1)


@command()
def schema() -> None:
    """The JSON schema of a sweep file."""
    from landsweep.cluster import spec

    _say(json.dumps(spec.json_schema(), indent=2))


@command()
def verify(sweep: Location, as_json: Json = False) -> None:
    """Check every committed file against its checksum."""
    from landsweep.cluster.progress import damaged
    from landsweep.cluster.store import SweepStore

    store = SweepStore(_location(sweep))
    if not store.exists():
        raise QueryError(f"{store.uri}: no sweep there; name <store>/<name>")
    count, faults = damaged(store)
    if as_json:
        _say(json.dumps({"files": count, "damaged": faults}, indent=2))
    else:
        for fault in faults:
            _say(fault)
        _say(f"{count} files checked, {len(faults)} damaged")
    if faults:
        raise typer.Exit(1)


@command()
def gc(
    sweep: Location,
    delete: Annotated[bool, typer.Option("--delete", help="remove them; without it they are only shown")] = False,
    as_json: Json = False,
) -> None:
    """What no commit names and nobody has written to for a day: show it, or remove it."""
    import time

    from landsweep.cluster import garbage
    from landsweep.cluster.store import SweepStore

    store, now = SweepStore(_location(sweep)), time.time()
    if not store.exists():
        raise QueryError(f"{store.uri}: no sweep there; name <store>/<name>")
    found = garbage.leftovers(store, now)
    if delete:
        found = garbage.remove(store, found)
    if as_json:
        rows = [{"name": left.name, "bytes": left.bytes, "why": left.why} for left in found]
        _say(json.dumps({"leftovers": rows, "removed": delete}, indent=2))
        return
    for left in found:
        _say(f"{left.name}: {left.bytes:,} bytes, {(now - left.modified) / 3600:.0f} hours old, {left.why}")
    count = f"{len(found)} leftover{'' if len(found) == 1 else 's'}, {sum(left.bytes for left in found):,} bytes"
    hint = f"; nothing was removed: --delete removes {'it' if len(found) == 1 else 'them'}" if found else ""
    _say(f"{count} removed" if delete else f"{count}{hint}")


@command()
def doctor(
    store: Annotated[str, typer.Argument(help="a store", metavar="STORE")] = "./runs",
    address: Annotated[str | None, typer.Option(envvar="RAY_ADDRESS", help="Ray cluster; none: embedded")] = None,
    tracking_uri: Annotated[str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow")] = None,
    as_json: Json = False,
) -> None:
    """Try what sweeps need on this machine, and say how to mend what does not work."""
    from dataclasses import asdict

    from landsweep.cluster.doctor import examine

    checks = []
    for check in examine(store, address, tracking_uri):
        checks.append(check)
        if not as_json:
            state = "ok" if check.works else ("mend" if check.needed else "not needed")
            _say(f"{check.part:9} {state}: {check.found}{f'; {check.mend}' if check.mend else ''}")
    if as_json:
        _say(json.dumps([asdict(check) for check in checks], indent=2))
    if any(check.needed and not check.works for check in checks):
        raise typer.Exit(1)


@command()
def ui(
    store: Annotated[str, typer.Argument(help="a store", metavar="STORE")] = "./runs",
    tracking_uri: Annotated[str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow's data")] = None,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on")] = 5000,
) -> None:
    """Serve the MLflow UI on a store's tracking data."""
    from landsweep.cluster import tracking

    uri = tracking_uri or tracking.default_uri(store)
    if uri == tracking.OFF:
        raise RequestError(f"{store}: a store on S3 keeps no tracking data; name the server's with --tracking-uri")
    if uri.startswith("sqlite:") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise RequestError(f"{uri}: no tracking data there; run a sweep with this store first")
    raise typer.Exit(subprocess.call(tracking.ui_command(uri, host, port)))  # noqa: S603  (arguments of our own)
