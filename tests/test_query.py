"""Filters, columns and kinds on a small sweep; what is not in the grammar is refused, and nothing is evaluated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import landsweep
from landsweep.analysis.query import check_columns, parse_where
from landsweep.analysis.sweep import Sweep
from landsweep.cluster import commit
from landsweep.cluster.store import SweepStore
from landsweep.workers import record
from landsweep.workers.errors import QueryError, StoreError
from tests import fabricated

TABLE = pa.table(
    {
        "seed": pa.array([0, 1, 2, None], pa.int64()),
        "objective": pa.array([0.5, 1.0, -2.0, None], pa.float64()),
        "kind": pa.array(["minimum", "a and b", "it's", None], pa.string()),
        "certified": pa.array([True, False, True, None], pa.bool_()),
        "spectrum": pa.array([[1.0], [2.0], [], None], pa.list_(pa.float64())),
        "training.lr": pa.array([0.1, 0.2, 0.3, 0.4], pa.float64()),
        "inner": pa.array([1, 2, 3, 4], pa.int64()),
    }
)


def rows(where: str) -> list[int]:
    numbered = TABLE.append_column("row", pa.array(range(4)))
    return list(numbered.filter(parse_where(where, TABLE.schema))["row"].to_pylist())


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("seed = 1", [1]),
        ("seed == 1", [1]),
        ("seed != 1", [0, 2]),
        ("seed < 1", [0]),
        ("seed <= 1", [0, 1]),
        ("seed > 1", [2]),
        ("seed >= 1", [1, 2]),
        ("seed<=1", [0, 1]),
        ("seed < 1.5", [0, 1]),
        ("seed == 1.5", []),
        ("seed == 99999999999999999999", []),
        ("seed < " + "9" * 5000, [0, 1, 2]),
        ("seed in [1, 99999999999999999999]", [1]),
        ("seed == +1", [1]),
        ("objective == .5", [0]),
        ("seed in [0, 2]", [0, 2]),
        ("seed in [0, 2.5]", [0]),
        ("seed in []", []),
        ("inner in [1]", [0]),
        ("objective > -2.5e0", [0, 1, 2]),
        ("objective == 1", [1]),
        ("objective in [1, 0.5]", [0, 1]),
        ("objective in [1]", [1]),
        ("objective < 1e-3", [2]),
        ("kind == 'minimum'", [0]),
        ('kind == "minimum"', [0]),
        ("kind == 'a and b'", [1]),
        ('kind == "a and b" and seed == 1', [1]),
        ('kind == "it\'s"', [2]),
        ('kind == "it\'s" and seed < 5', [2]),
        ("kind in ['minimum', 'a and b']", [0, 1]),
        ('kind in ["it\'s"]', [2]),
        ("kind in ['say \"x\"', 'minimum']", [0]),
        ("certified == true", [0, 2]),
        ("certified != true", [1]),
        ("certified = false", [1]),
        ("certified in [true, false]", [0, 1, 2]),
        ("kind == null", [3]),
        ("seed != null", [0, 1, 2]),
        ("spectrum == null", [3]),
        ("training.lr < 0.25", [0, 1]),
        ("seed > 0 AND certified == true", [2]),
        ("seed >= 0 and seed < 2 and objective > 0.7", [1]),
        ("  seed   ==  1  ", [1]),
        ("seed == 1\n and kind != 'x'", [1]),
    ],
)
def test_every_operator_and_literal(where: str, wanted: list[int]) -> None:
    assert rows(where) == wanted


@pytest.mark.parametrize(
    "where",
    [
        "__import__('os')",
        "__import__('os').system('x') == 1",
        "seed or 1==1",
        "seed == 1 or 1==1",
        "seed == 1; drop",
        "1 == 1",
        "seed == seed",
        "seed == (1)",
        "seed == 0x10",
        "seed == 1_000",
        "seed == nan",
        "seed == NaN",
        "seed == [1]",
        "seed in 1",
        "seed in (1, 2)",
        "seed in [[1]]",
        "seed in [null]",
        "seed in [1",
        "seed == {}",
        "seed == {'a': 1}",
        "seed == " + "[" * 3000,
        "seed ==",
        "== 1",
        "seed",
        "",
        "   ",
        "and",
        "seed == 1 and",
        "and seed == 1",
        "seed == 1 and and seed == 2",
        "kind == minimum",
        "kind == 'minimum",
        "kind == 'a' b'",
        "kind == 'a''",
        "kind < null",
        "seed in null",
        "not seed == 1",
        "seed === 1",
        "seed =< 1",
        "seed <> 1",
        "seed == 1 -- x",
        "seed is null",
        "kind like 'm%'",
    ],
)
def test_everything_else_is_refused_with_the_mend(where: str) -> None:
    with pytest.raises(QueryError, match=r"--where: .*(write column op literal|holds|use)") as error:
        parse_where(where, TABLE.schema)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("seed == 'x'", "holds int64, found 'x'"),
        ("seed == true", "holds int64, found True"),
        ("objective == '1'", "holds double"),
        ("kind == 1", "holds string, found 1"),
        ("kind in ['a', 1]", "holds string, found 1"),
        ("certified == 1", "holds bool, found 1"),
        ("spectrum == 1", "holds list"),
        ("spectrum in [1]", "holds list"),
        ("sed == 1", "no column 'sed'; did you mean 'seed'?"),
        ("training.ls == 1", "did you mean 'training.lr'?"),
        ("zzzzzz == 1", "no column 'zzzzzz'; there are seed, objective"),
        ("seed > null", "use == null or != null"),
    ],
)
def test_wrong_types_and_columns_say_what_there_is(where: str, message: str) -> None:
    with pytest.raises(QueryError) as error:
        parse_where(where, TABLE.schema)
    assert message in str(error.value)


def test_columns_are_checked() -> None:
    assert check_columns(["seed", "kind"], TABLE.schema) == ["seed", "kind"]
    with pytest.raises(QueryError, match=r"did you mean 'objective'\?"):
        check_columns(["seed", "objectve"], TABLE.schema)


# --- the tables of a sweep ----------------------------------------------------------------------------------------


@pytest.fixture(params=["staged", "gathered", "both"])
def sweep(tmp_path: Path, request: pytest.FixtureRequest) -> Sweep:
    store = SweepStore(tmp_path / "small")
    fabricated.stage(store, "bb", [1, 0], "b1")
    if request.param == "both":
        commit.gather(store)
    fabricated.stage(store, "aa", [3, 2], "b0")
    fabricated.stage_failed(store, "aa", 4)
    if request.param == "gathered":
        commit.gather(store)
    store.files.write("sweep.yaml", b"name: small\n")
    return landsweep.open(tmp_path / "small")


DTYPES = {"string": "str", "int64": "Int64", "double": "float64", "bool": "boolean"}


def check_dtypes(frame: pd.DataFrame, table: str) -> None:
    for field in record.schema(table, fabricated.GRID):
        wanted = DTYPES.get(str(field.type), "object")
        assert str(frame[field.name].dtype) == wanted, (table, field.name)


@pytest.mark.parametrize("table", ["points", "trials", "trajectories", "spectra"])
def test_tables_have_the_documented_columns_and_types(sweep: Sweep, table: str) -> None:
    frame = getattr(sweep, table)()
    check_dtypes(frame, table)
    extra = ["class_id"] if table == "points" else []
    assert list(frame.columns) == [*record.schema(table, fabricated.GRID).names, *extra]
    order = list(zip(frame["config"], frame["seed"], strict=True))
    assert order == sorted(order)


@pytest.mark.parametrize("table", ["points", "trials", "trajectories", "spectra"])
def test_plain_pandas_reads_the_same_types(tmp_path: Path, table: str) -> None:
    store = SweepStore(tmp_path)
    fabricated.stage(store, "aa", [0, 1])
    commit.gather(store)
    fabricated.stage(store, "bb", [0, 1])
    commit.gather(store)
    check_dtypes(pd.read_parquet(tmp_path / table), table)
    check_dtypes(pd.read_parquet(tmp_path / table / "segment-00000000.parquet"), table)


def test_points_are_chosen_by_kind_filter_and_columns(sweep: Sweep) -> None:
    assert set(sweep.points(kind="saddle")["kind"]) == {"saddle"}
    assert len(sweep.points(kind=["minimum", "saddle"])) == 8
    chosen = sweep.points(["seed", "test_loss"], "seed >= 2 and source == 'training'")
    assert list(chosen.columns) == ["seed", "test_loss"]
    assert chosen["seed"].tolist() == [2, 3]
    assert chosen["test_loss"].tolist() == [0.6 + 2 / 64, 0.6 + 3 / 64]
    assert sweep.points(where="training.lr == 0.25 and landscape.hidden == '[2]'", kind="minimum").shape[0] == 4
    assert sweep.points(["class_id"]).columns.tolist() == ["class_id"]
    assert sweep.points(where="seed > 100").empty


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda sweep: sweep.points(["kid"]), "did you mean 'kind'"),
        (lambda sweep: sweep.points(kind="minimun"), "found 'minimun'; allowed are minimum,"),
        (lambda sweep: sweep.points(kind=["saddle", "x"]), "found 'x'"),
        (lambda sweep: sweep.points(where="landscape.hiden == 'x'"), "did you mean 'landscape.hidden'"),
        (lambda sweep: sweep.parameters("nothing"), "no point 'nothing'"),
    ],
)
def test_requests_that_mean_nothing_are_refused(sweep: Sweep, ask: Callable[[Sweep], object], message: str) -> None:
    with pytest.raises(QueryError, match=message):
        ask(sweep)


def test_classes_are_those_of_the_whole_sweep(sweep: Sweep) -> None:
    whole = sweep.points().set_index("point")["class_id"]
    part = sweep.points(["point", "class_id"], "seed == 2", "minimum")
    assert part["class_id"].tolist() == [whole[part["point"][0]]]
    assert whole.nunique() == 8  # every fingerprint of the table is another


def test_parameters_of_a_point(sweep: Sweep) -> None:
    for row in sweep.points(["point", "seed", "source"]).to_dict("records"):
        theta = np.array([row["seed"], row["seed"] + 0.5], dtype=float)
        found = sweep.parameters(row["point"])
        assert found["theta"].tolist() == (theta if row["source"] == "training" else -theta).tolist()
        # a batch's trials lie in the order of their seeds
    assert set(found) == {"theta", "initial", "trained"}


def test_a_place_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no sweep there.*landsweep list"):
        landsweep.open(tmp_path / "nothing")
