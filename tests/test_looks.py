"""The question before the first result, and the looks at a growing sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from landsweep.analysis.looks import LOOKS_FILE, Looks, Registered
from landsweep.analysis.power import nominal_alpha
from landsweep.analysis.sweep import Sweep
from landsweep.analysis.verdict import VerdictOptions
from landsweep.cluster.store import QUESTION_FILE, SweepStore
from landsweep.workers.errors import StoreError
from landsweep.workers.record import canonical_json
from tests import fabricated


def asked(store: SweepStore, planned: int, **options: Any) -> None:
    content = canonical_json({"options": {"metric": "test_loss", "margin": 0.02, **options}, "planned": planned})
    store.files.write(QUESTION_FILE, content.encode())


@pytest.fixture
def store(tmp_path: Path) -> SweepStore:
    store = SweepStore(tmp_path / "small")
    asked(store, planned=8)
    return store


def grow(store: SweepStore, first: int, last: int) -> Sweep:
    fabricated.stage(store, "aa", list(range(first, last)))
    return Sweep(store)


def test_without_a_registered_question_defaults_hold(tmp_path: Path) -> None:
    store = SweepStore(tmp_path)
    assert Registered.read(store) == Registered({}, None)
    assert Looks.read(store) == Looks(())
    fabricated.stage(store, "aa", [0, 1])
    answer = Sweep(store).verdict()
    assert (answer.metric, answer.alpha, answer.exploratory) == ("test_loss", 0.05, False)


def test_the_registered_question_is_answered(store: SweepStore) -> None:
    asked(store, planned=4, metric="test_loss", margin=0.5, band=0.01, alpha=0.1)
    answer = grow(store, 0, 4).verdict()
    assert (answer.margin, answer.band, answer.alpha) == (0.5, 0.01, 0.1)
    assert not answer.exploratory


def test_looks_at_a_growing_sweep_spend_alpha(store: SweepStore) -> None:
    early = grow(store, 0, 4).verdict()
    first = nominal_alpha(0.05, 0.5, 0.0)
    assert early.alpha == pytest.approx(first)
    assert early.details["information_fraction"] == 0.5
    last = grow(store, 4, 8).verdict()
    assert last.alpha == pytest.approx(0.05 - first)
    assert last.details["alpha_spent_after"] == pytest.approx(0.05)
    assert not last.exploratory
    beyond = grow(store, 8, 10).verdict()  # the sweep was extended after its last look: nothing is left
    assert beyond.exploratory
    assert [entry["trials"] for entry in Looks.read(store).entries] == [4, 8, 10]


def test_the_first_look_at_the_whole_sweep_has_the_whole_alpha(store: SweepStore) -> None:
    answer = grow(store, 0, 8).verdict()
    assert answer.alpha == 0.05
    assert not answer.exploratory


def test_the_same_look_twice_is_one(store: SweepStore) -> None:
    sweep = grow(store, 0, 4)
    first = sweep.verdict()
    assert sweep.verdict().as_dict() == first.as_dict()
    assert len(Looks.read(store).entries) == 1
    grow(store, 4, 8).verdict()
    assert Sweep(store).verdict().alpha == pytest.approx(0.05 - first.alpha)
    assert len(Looks.read(store).entries) == 2


def test_a_look_that_is_not_recorded_spends_nothing(store: SweepStore) -> None:
    grow(store, 0, 4).verdict(record_look=False)
    assert store.text(LOOKS_FILE) is None
    assert grow(store, 4, 8).verdict().alpha == 0.05


def test_an_empty_sweep_is_no_look(store: SweepStore) -> None:
    assert Sweep(store).verdict().verdict == "inconclusive"
    assert store.text(LOOKS_FILE) is None


@pytest.mark.parametrize("change", [{"margin": 0.5}, {"metric": "gap"}, {"band": 0.1}, {"margin": None}])
def test_another_question_after_the_first_result_is_exploratory(store: SweepStore, change: dict[str, Any]) -> None:
    asked(store, planned=8, margin=0.03)
    sweep = grow(store, 0, 8)
    answer = sweep.verdict(**change)
    assert answer.exploratory
    if "margin" in change:
        assert answer.margin == (change["margin"] or 0.02)
    assert not sweep.verdict(margin=0.03).exploratory  # the registered question, spelled out


def test_another_question_does_not_spend_the_first_ones_alpha(store: SweepStore) -> None:
    grow(store, 0, 4).verdict(margin=0.5)
    answer = grow(store, 4, 8).verdict()
    assert answer.alpha == 0.05


def test_shares_of_what_is_planned() -> None:
    looks, options = Looks(()), VerdictOptions()
    assert looks.before(options, 2, 8) == (0.0, 0.25)
    assert looks.before(options, 9, 8) == (0.0, 1.0)
    assert looks.before(options, 2, None) == (0.0, 1.0)


@pytest.mark.parametrize("name", [QUESTION_FILE, LOOKS_FILE])
def test_damaged_files_are_named(store: SweepStore, name: str) -> None:
    sweep = grow(store, 0, 2)
    store.files.write(name, b'{"opt')
    with pytest.raises(StoreError, match=name):
        sweep.verdict()
