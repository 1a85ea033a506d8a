"""The command line: what it prints, how it exits, that it never shows a traceback and writes nothing it should not."""

from __future__ import annotations

import functools
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

import landsweep
from landsweep.cli import app
from landsweep.cluster import ray_executor
from landsweep.cluster.executors import InlineExecutor
from tests.malformed import MALFORMED, VALID, content
from tests.toy import small_sweep, spoil

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory, an import path of its own, no cluster, jobs in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(ray_executor, "RayExecutor", lambda *_: InlineExecutor())


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def refused(result: Result) -> str:
    """The one message of a refused request."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.startswith("landsweep: ")
    assert result.stderr.count("landsweep: ") == 1
    assert "Traceback" not in result.stderr
    return result.stderr


def written(sweep: dict[str, Any], folder: Path) -> Path:
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(sweep))
    return path


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """The file of a sweep that was run: 2 configurations × 4 seeds."""
    folder = tmp_path_factory.mktemp("cli")
    path = written(small_sweep(folder), folder)
    before = list(sys.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_executor, "RayExecutor", lambda *_: InlineExecutor())
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("RAY_ADDRESS", raising=False)
        result = call("run", path)
    sys.path[:] = before
    assert result.exit_code == 0, result.output
    assert "toy: 2 configurations, 8 trials, 0 done; 2 batches of at most 4 trials to run" in result.stdout
    assert "toy: 8/8 trials" in result.stdout
    assert "Verdict" in result.stdout
    assert f"report: {folder}/runs/toy/report.html" in result.stdout
    return path


def store_of(toy: Path) -> Path:
    return toy.parent / "runs" / "toy"


# --- requests that are wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_files_are_refused(name: str, tmp_path: Path) -> None:
    text, key, mend = MALFORMED[name]
    (tmp_path / "sweep-file.yaml").write_bytes(content(text))
    message = refused(call("run", "sweep-file.yaml"))
    assert key in message
    assert mend in message
    assert "sweep-file.yaml" in message
    assert "hunter2" not in message
    assert names(tmp_path) == ["sweep-file.yaml"]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "nothing.yaml: no such file; name an existing sweep file" in refused(call("run", "nothing.yaml"))
    assert "cannot be read" in refused(call("run", tmp_path))
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seeds", "write dotted.key=value"),
        ("seeds=-1", "seeds: found -1"),
        ("training.speed=1", "training.speed: unknown key"),
        ("training.lr=fast", "training.lr: found 'fast'"),
        ("training.lr.x=1", "set it as a whole"),
        ("=1", "not a dotted key"),
        ("seeds=[", "--set seeds: not YAML"),
        ("name=../x", "name: found '../x'"),
    ],
)
def test_wrong_settings_are_refused(setting: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(VALID)
    assert message in refused(call("run", "sweep.yaml", "--set", setting))
    assert names(tmp_path) == ["sweep.yaml"]


def test_an_address_for_jobs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(VALID)
    message = refused(call("run", "sweep.yaml", "--address", "http://head:8265"))
    assert "http://head:8265" in message
    assert "landsweep submit" in message
    assert names(tmp_path) == ["sweep.yaml"]


def test_a_password_in_a_tracking_uri_is_refused_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(VALID)
    message = refused(call("run", "sweep.yaml", "--tracking-uri", "postgresql://me:hunter2@host/db"))
    assert "MLFLOW_TRACKING_PASSWORD" in message
    assert "hunter2" not in message


def test_another_sweep_under_the_same_name_is_refused(toy: Path) -> None:
    message = refused(call("run", toy, "--set", "training.steps=6"))
    assert "training.steps differ" in message
    assert "choose another name" in message


@pytest.mark.parametrize("verb", ["points", "verdict", "report", "verify"])
def test_a_place_without_a_sweep_is_refused(verb: str, tmp_path: Path) -> None:
    assert "nowhere: no sweep there" in refused(call(verb, "runs/nowhere"))
    assert names(tmp_path) == []


def test_a_store_that_cannot_be_written_is_refused(toy: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = call("run", toy, "--store", "file")
    assert result.exit_code == 2
    assert "file/toy" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("arguments", [["fly"], ["run"], ["points", "a", "b"], ["run", "x.yaml", "--sets", "a=1"]])
def test_unknown_verbs_and_options_exit_2(arguments: list[str]) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--where", "sed < 3"], "did you mean 'seed'"),
        (["--where", "__import__('os').system('echo')"], "cannot be read"),
        (["--columns", "seed,knd"], "did you mean 'kind'"),
        (["--kind", "minima"], "allowed are minimum"),
        (["--format", "xml"], "found 'xml'; allowed are table, csv, json, parquet"),
        (["-o", "points.xlsx"], "found 'xlsx'"),
        (["--format", "parquet"], "-o points.parquet"),
        (["-o", "missing/points.csv"], "missing/points.csv"),
        (["-o", "missing/points.parquet"], "missing"),
    ],
)
def test_queries_that_cannot_be_answered_are_refused(
    toy: Path, arguments: list[str], message: str, tmp_path: Path
) -> None:
    assert message in refused(call("points", toy, *arguments))
    assert names(tmp_path) == []


def test_a_verdict_that_means_nothing_is_refused(toy: Path) -> None:
    assert "alpha is 2.0" in refused(call("verdict", toy, "--alpha", "2"))
    assert "metric 'loss' is unknown" in refused(call("verdict", toy, "--metric", "loss"))


# --- answers ------------------------------------------------------------------------------------------------------


def test_version() -> None:
    assert call("--version").stdout == f"landsweep {landsweep.__version__}\n"


def test_running_again_does_nothing(toy: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in store_of(toy).rglob("*") if path.is_file()}
    result = call("run", toy)
    assert result.exit_code == 0
    assert "toy: all 8 trials are done; no batch to run" in result.stdout
    assert "Verdict" in result.stdout
    assert {path: path.read_bytes() for path in store_of(toy).rglob("*") if path.is_file()} == before
    assert names(tmp_path) == []


def test_an_edited_question_is_answered_and_exploratory(toy: Path) -> None:
    result = call("run", toy, "--set", "verdict.margin=0.75")
    assert result.exit_code == 0
    stored = json.loads((store_of(toy) / "verdict/verdict.json").read_text())
    assert (stored["margin"], stored["exploratory"]) == (0.75, True)
    assert call("run", toy).exit_code == 0
    assert json.loads((store_of(toy) / "verdict/verdict.json").read_text())["exploratory"] is False


def test_plan_writes_nothing(toy: Path, tmp_path: Path) -> None:
    facts = json.loads(call("plan", toy, "--store", "elsewhere", "--json").stdout)
    assert facts["location"] == "elsewhere/toy"
    assert {key: facts[key] for key in ("configurations", "trials", "trials_done", "trials_left", "batches_left")} == {
        "configurations": 2,
        "trials": 8,
        "trials_done": 0,
        "trials_left": 8,
        "batches_left": 2,
    }
    assert facts["parameters"] == [2]
    done = call("plan", toy)
    assert "trials left" in done.stdout
    assert json.loads(call("plan", toy, "--json").stdout)["trials_left"] == 0
    assert names(tmp_path) == []


def test_list(toy: Path) -> None:
    assert call("list", toy.parent / "runs").stdout == "toy: 8/8 trials in 2 configurations\n"
    (row,) = json.loads(call("list", toy.parent / "runs", "--json").stdout)
    assert (row["name"], row["trials"], row["done"], row["failed"]) == ("toy", 8, 8, 0)
    assert call("list", "nowhere").stdout == "no sweeps in nowhere\n"


def test_points_in_every_format(toy: Path, tmp_path: Path) -> None:
    wanted = landsweep.open(store_of(toy)).points()
    table = call("points", store_of(toy)).stdout
    assert table.endswith(f"\n{len(wanted)} points\n")
    assert "objective" in table.splitlines()[0]
    for path in ("all.csv", "all.json", "all.parquet"):
        assert call("points", toy, "-o", path).exit_code == 0
    pd.testing.assert_frame_equal(pd.read_parquet("all.parquet"), wanted)
    for text in (Path("all.csv").read_text(), call("points", toy, "--format", "csv").stdout):
        frame = pd.read_csv(io.StringIO(text))
        assert frame["objective"].tolist() == wanted["objective"].tolist()
        assert frame["point"].tolist() == wanted["point"].tolist()
    for text in (Path("all.json").read_text(), call("points", toy, "--json").stdout):
        rows = json.loads(text)
        assert [row["objective"] for row in rows] == pytest.approx(wanted["objective"].tolist(), rel=1e-14)
        assert list(rows[0]) == list(wanted.columns)
    chosen = call("points", toy, "--columns", "seed, kind", "--where", "seed >= 2", "--kind", "minimum", "--json")
    assert {(row["seed"], row["kind"]) for row in json.loads(chosen.stdout)} == {(2, "minimum"), (3, "minimum")}
    assert list(json.loads(chosen.stdout)[0]) == ["seed", "kind"]


def test_verdict(toy: Path) -> None:
    answer = json.loads(call("verdict", toy, "--margin", "0.5", "--json").stdout)
    assert answer["verdict"] == "inconclusive"
    assert (answer["margin"], answer["exploratory"]) == (0.5, True)
    plain = call("verdict", store_of(toy))
    assert plain.exit_code == 0
    assert "inconclusive" in plain.stdout


def test_report(toy: Path, tmp_path: Path) -> None:
    assert call("report", toy).stdout == "toy-report.html\n"
    assert (tmp_path / "toy-report.html").read_text().lstrip().lower().startswith("<!doctype html>")
    assert call("report", toy, "-o", "other.html").stdout == "other.html\n"


def test_landscapes_and_schema() -> None:
    assert "mlp: " in call("landscapes").stdout
    assert json.loads(call("landscapes", "--json").stdout)["mlp"]["hidden"]["default"] == [10]
    schema = json.loads(call("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(VALID), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**yaml.safe_load(VALID), "sedes": 3}, schema)


def test_verify_finds_a_flipped_byte(toy: Path) -> None:
    result = call("verify", toy)
    assert result.exit_code == 0
    assert result.stdout.endswith("files checked, 0 damaged\n")
    (path,) = store_of(toy).glob("spectra/*.parquet")
    whole = path.read_bytes()
    place = len(whole) // 2
    try:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        result = call("verify", toy)
        assert result.exit_code == 1
        assert result.stdout.startswith(f"spectra/{path.name}: {len(whole)} bytes with another checksum")
        (fault,) = json.loads(call("verify", toy, "--json").stdout)["damaged"]
        assert fault.startswith(f"spectra/{path.name}")
    finally:
        path.write_bytes(whole)


def test_a_failed_trial_exits_1_and_is_named(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path, grid={})
    bad = spoil(sweep, seed=3)
    path = written(sweep, tmp_path)
    result = call("run", path)
    assert result.exit_code == 1
    assert "1 trials failed" in result.stderr
    assert "-3: ValueError: boom" in result.stderr
    assert "--retry-failed" in result.stderr
    assert "Traceback" not in result.output
    assert "Verdict" in result.stdout  # what is done is concluded all the same
    assert "1 failed" in call("list", "runs").stdout
    bad.unlink()
    again = call("run", path, "--retry-failed")
    assert again.exit_code == 0
    assert "4 trials, 3 done; 1 batches" in again.stdout


# --- real processes -----------------------------------------------------------------------------------------------


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "landsweep", *map(str, arguments)]


def test_a_reader_that_goes_away_is_no_error(toy: Path) -> None:
    process = subprocess.Popen(command("points", toy, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()  # as `| head` does once it has its lines
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait() == 0


def test_a_refused_request_in_a_process(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(VALID + "sedes: 4\n")
    ended = subprocess.run(command("run", "sweep.yaml"), capture_output=True, text=True, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("landsweep: sweep.yaml: sedes: unknown key; did you mean seeds?")
    assert names(tmp_path) == ["sweep.yaml"]


@pytest.mark.parametrize("seconds", [2.5])
def test_a_run_is_interrupted_while_it_plans_and_ray_comes_up(seconds: float, tmp_path: Path) -> None:
    path = written(small_sweep(tmp_path), tmp_path)
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    options: dict[str, Any] = {"start_new_session": True, "preexec_fn": heed, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command("run", path), text=True, cwd=tmp_path, **options)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(seconds)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors == "landsweep: interrupted; what is committed is kept, and the same command goes on from there\n"


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    path = written(small_sweep(tmp_path, grid={}, seeds=6, resources={"batch": 1}), tmp_path)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # a background shell starts its processes with SIGINT ignored, and that is inherited
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    group: dict[str, Any] = {"start_new_session": True, "preexec_fn": heed}
    process = subprocess.Popen(command("run", path), text=True, cwd=tmp_path, **group, **pipes)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("toy: ") and "/6 trials" in line:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: Ray's processes get it too
            break
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, (output, errors)
    assert errors == "landsweep: interrupted; what is committed is kept, and the same command goes on from there\n"
    assert not list((tmp_path / "runs/toy").glob("staged/*/batch.json"))
    ended = subprocess.run(command("run", path), capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert "toy: 6/6 trials" in ended.stdout
    assert "Verdict" in ended.stdout
    trials = pd.read_parquet(tmp_path / "runs/toy/trials")
    assert sorted(trials["seed"]) == [0, 1, 2, 3, 4, 5]
