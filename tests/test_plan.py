"""Configurations, ids and batches."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landsweep.cluster import plan, spec
from landsweep.cluster.spans import Spans
from landsweep.cluster.spec import Seeds
from landsweep.workers import record

BASE: dict[str, Any] = {
    "name": "small",
    "seeds": 10,
    "landscape": {"name": "mlp", "hidden": [2], "weight_decay": 1e-3},
    "training": {"optimizer": "adam", "lr": 0.1, "steps": 10},
}


def expand(**changes: Any) -> tuple[plan.Configuration, ...]:
    return plan.expand(spec.validate({**BASE, **changes}, "sweep.yaml"))


def test_grid_is_expanded_in_its_order_with_its_values() -> None:
    cells = expand(grid={"landscape.hidden": [[2], [3]], "training.lr": [1, 0.5]})
    assert [(cell.grid["landscape.hidden"], cell.grid["training.lr"]) for cell in cells] == [
        ([2], 1.0),
        ([2], 0.5),
        ([3], 1.0),
        ([3], 0.5),
    ]
    assert all(cell.settings["training"]["lr"] == cell.grid["training.lr"] for cell in cells)
    assert len({cell.id for cell in cells}) == 4
    assert set(cells[0].settings) == {"landscape", "training", "search", "measure"}


def test_id_is_the_same_however_a_configuration_came_about() -> None:
    (direct,) = expand(training={"optimizer": "adam", "lr": 1.0, "steps": 10})
    from_grid = expand(training={"optimizer": "adam", "steps": 10}, grid={"training.lr": [0.5, 1]})
    explicit = {"optimizer": "adam", "lr": 1, "steps": 10, "betas": [0.9, 0.999], "batch_size": "full"}
    (spelled_out,) = expand(training=explicit, name="other", seeds={"start": 5, "stop": 6}, resources={"num_cpus": 2})
    assert from_grid[1].id == direct.id == spelled_out.id
    assert from_grid[1].settings == direct.settings == spelled_out.settings
    assert from_grid[0].id != direct.id


def test_id_depends_on_numerics_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = spec.validate(BASE, "sweep.yaml")
    before = {
        plan.expand(sweep)[0].id,
        plan.expand(sweep, lambda _: "a" * 64)[0].id,
        plan.expand(sweep, lambda _: "b" * 64)[0].id,
    }
    monkeypatch.setattr(record, "NUMERICS_VERSION", record.NUMERICS_VERSION + 1)
    assert len(before | {plan.expand(sweep)[0].id}) == 4


def test_optimisers_share_a_landscape() -> None:
    cells = expand(
        training={"optimizer": "adam"}, grid={"training.optimizer": ["adam", "gd"], "landscape.hidden": [[2], [3]]}
    )
    keys = [plan.landscape_key(cell) for cell in cells]
    assert keys[0] == keys[2] != keys[1] == keys[3]
    (with_code,) = plan.expand(spec.validate(BASE, "sweep.yaml"), lambda _: "a" * 64)
    assert plan.landscape_key(with_code) not in keys


def _shuffled(value: Any, random: Any) -> Any:
    if not isinstance(value, dict):
        return value
    items = list(value.items())
    random.shuffle(items)
    return {key: _shuffled(inner, random) for key, inner in items}


@given(st.randoms(use_true_random=False))
def test_ids_do_not_depend_on_the_order_of_keys(random: Any) -> None:
    full = spec.validate({**BASE, "search": {"saddles": {"per_trial": 2}}}, "sweep.yaml")
    other = spec.validate(_shuffled(full.canonical(), random), "sweep.yaml")
    assert plan.expand(other) == plan.expand(full)


@given(
    start=st.integers(0, 300),
    count=st.integers(1, 80),
    size=st.integers(1, 70),
    done=st.sets(st.integers(0, 400)),
)
def test_batches_are_exactly_what_is_left(start: int, count: int, size: int, done: set[int]) -> None:
    (config,) = expand()
    batches = plan.plan_batches(Seeds(start=start, stop=start + count), [config], {config.id: Spans.of(done)}, size)
    seeds = [seed for batch in batches for seed in batch.seeds]
    assert (len(list(batches)), len(seeds)) == (len(batches), batches.trials)
    assert seeds == [seed for seed in range(start, start + count) if seed not in done]
    assert all(batch.seeds and len({seed // size for seed in batch.seeds}) == 1 for batch in batches)
    assert len({batch.id for batch in batches}) == len(batches)


def test_resumed_and_extended_sweeps_form_the_same_batches() -> None:
    (config,) = expand()
    whole = list(plan.plan_batches(Seeds(start=0, stop=60), [config], {}, 16))
    assert [batch.seeds[0] for batch in whole] == [0, 16, 32, 48]
    resumed = plan.plan_batches(Seeds(start=0, stop=60), [config], {config.id: Spans.of(range(32))}, 16)
    assert list(resumed) == whole[2:]
    extended = plan.plan_batches(Seeds(start=0, stop=70), [config], {config.id: Spans.of(range(60))}, 16)
    assert [batch.seeds for batch in extended] == [(60, 61, 62, 63), (64, 65, 66, 67, 68, 69)]


def test_batches_of_other_configurations_have_other_ids() -> None:
    cells = expand(grid={"training.lr": [0.1, 0.2]})
    batches = list(plan.plan_batches(Seeds(start=0, stop=4), cells, {}, 4))
    assert [batch.config for batch in batches] == list(cells)
    assert batches[0].id != batches[1].id


def test_a_batch_holds_a_trial() -> None:
    with pytest.raises(ValueError, match="at least one"):
        plan.plan_batches(Seeds(start=0, stop=4), [], {}, 0)


def test_grid_columns_are_numbers_only_where_every_value_is_one() -> None:
    sweep = spec.validate(
        {
            **BASE,
            "landscape": {"name": "mine.toy:build"},
            "grid": {
                "training.lr": [1, 0.5],
                "training.batch_size": [8, "full"],
                "landscape.flag": [True, 2],
                "landscape.p": [[1], [2]],
            },
        },
        "sweep.yaml",
    )
    assert plan.grid_columns(sweep) == {
        "training.lr": True,
        "training.batch_size": False,
        "landscape.flag": False,
        "landscape.p": False,
    }
