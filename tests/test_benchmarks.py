"""What a contest says, on contenders whose rates are known."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from tests.benchmarks import __main__ as bench
from tests.benchmarks.contest import OURS, Contest, held, process


def contender(rates: Sequence[float], name: str, order: list[str]) -> Callable[[], Mapping[str, float]]:
    left = list(rates)

    def measure() -> Mapping[str, float]:
        order.append(name)
        return {"rate": left.pop(0), "objective": 0.5}

    return measure


def test_contenders_take_turns_and_meet_the_fastest_peer(tmp_path: Path) -> None:
    order: list[str] = []
    rates = {OURS: [4.0, 9.0, 2.0], "one": [2.0, 1.0, 1.0], "two": [1.0, 3.0, 4.0]}
    contest = Contest("toy", "nothing", "things/s", 1.5, {who: contender(rates[who], who, order) for who in rates})
    result = held(contest, 3)
    assert order == [OURS, "one", "two"] * 3
    assert result.ratios == [2.0, 3.0, 0.5]
    assert result.ratio == 2.0
    assert result.lines()[-1] == "    ratio 2 (0.5 … 3), wanted ≥ 1.5: reached"
    bench.plot([result], tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").stat().st_size > 1000
    assert json.loads(json.dumps(result.as_dict()))["rates"][OURS] == [4.0, 9.0, 2.0]


def test_a_contender_of_its_own_process_that_fails_is_said() -> None:
    with pytest.raises(RuntimeError, match=r"no_such_module.*exit 1"):
        process("tests.no_such_module")()


def test_landsweep_and_torch_train_the_same_net() -> None:
    """From their own starts: means of a few seeds."""
    ours = process("tests.benchmarks.training", OURS, "mlp", 8, 200)()
    theirs = process("tests.benchmarks.training", "torch", "mlp", 4, 200)()
    assert ours["objective"] == pytest.approx(theirs["objective"], rel=0.15)
