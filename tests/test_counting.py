"""Counting minima: closed forms, published numbers, simulated coverage, and what is left out."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from landsweep.analysis import plots_landscape
from landsweep.analysis.counting import chao1, chao1_parts, count_classes, good_turing, rarefaction
from landsweep.workers.errors import QueryError


def abundances(seen: int, f1: int, f2: int, n: int) -> list[int]:
    """Counts of ``seen`` classes with these singletons and doubletons, n in all."""
    rest = seen - f1 - f2
    counts = [3] * (rest - 1)
    return [*counts, n - f1 - 2 * f2 - sum(counts), *[2] * f2, *[1] * f1]


def table(classes: list[str | None], **columns: Any) -> pd.DataFrame:
    n = len(classes)
    frame = pd.DataFrame({"config": ["c"] * n, "class_id": pd.Series(classes, dtype=object)})
    frame["trial"] = [f"c-{k}" for k in range(n)]
    frame["point"] = [f"c-{k}-training-0" for k in range(n)]
    frame = frame.assign(source="training", kind="minimum", objective=0.5)
    for name, values in columns.items():
        frame[name] = values
    return frame


@pytest.mark.parametrize(
    ("seen", "f1", "f2", "n", "published"),
    [
        (26, 12, 4, 168, (43.893, 14.306, 30.511, 96.971)),
        (37, 14, 4, 252, (61.403, 18.532, 43.502, 128.583)),
    ],
)
def test_chao1_reproduces_the_published_spiders(
    seen: int, f1: int, f2: int, n: int, published: tuple[float, float, float, float]
) -> None:
    """Hemlock removal spiders (girdled, logged), as in Hsieh, Ma & Chao, Methods Ecol. Evol. 7 (2016) 1451–1456."""
    counts = abundances(seen, f1, f2, n)
    assert (len(counts), counts.count(1), counts.count(2), sum(counts)) == (seen, f1, f2, n)
    bound = chao1(counts, bias_corrected=False)
    assert (bound.estimate, bound.standard_error, bound.low, bound.high) == pytest.approx(published, abs=6e-4)


def test_bias_corrected_chao1_reproduces_the_published_trees() -> None:
    """Barro Colorado plot 1 (93 species, 31 and 18 rare ones of 448 trees): vegan's estimateR says 117.473684,

    without the factor (n − 1)/n on the unseen ones.
    """
    counts = abundances(93, 31, 18, 448)
    assert (chao1(counts).estimate - 93) * 448 / 447 + 93 == pytest.approx(117.473684, abs=1e-6)


def test_chao1_where_nothing_is_unseen() -> None:
    bound = chao1([50, 40, 30])
    assert (bound.estimate, bound.standard_error, bound.low, bound.lower_limit) == (3.0, None, 3.0, 3.0)
    assert bound.high == pytest.approx(3.0, abs=1e-3)
    few = chao1([3, 3, 3])
    assert few.high > 3.2  # three trials a class say less than thirty
    assert "LOWER BOUND" in str(type(bound).__doc__)
    assert chao1([1]).estimate == 1.0


def test_chao1_only_singletons() -> None:
    """f2 = 0: T = k·f1(f1−1)/2 = 0.9·10·9/2."""
    bound = chao1([1] * 10)
    assert bound.estimate == pytest.approx(10 + 40.5)
    variance = 0.9 * 45 + 0.81 * 10 * 19**2 / 4 - 0.81 * 10**4 / (4 * 50.5)
    assert bound.standard_error == pytest.approx(math.sqrt(variance))
    assert 10 < bound.low < bound.estimate < bound.high
    assert bound.low - 1 < bound.lower_limit < bound.estimate
    assert chao1([1] * 10, 0.5).lower_limit > bound.lower_limit > 10


def test_rarefaction_equals_enumeration() -> None:
    """Mean and variance of the number of classes over all C(9, m) subsets."""
    counts = [4, 2, 2, 1]
    owners = [k for k, times in enumerate(counts) for _ in range(times)]
    found = rarefaction(counts, range(1, 10)).set_index("trials")
    for m in range(1, 10):
        distinct = [len(set(chosen)) for chosen in itertools.combinations(owners, m)]
        assert found.loc[m, "classes"] == pytest.approx(np.mean(distinct), abs=1e-10)
        assert found.loc[m, "standard_deviation"] == pytest.approx(np.std(distinct), abs=1e-6)
    assert len(rarefaction([500, 400, 100])) == 40


@pytest.mark.parametrize("sizes", [[0], [10], [], [3, 11]])
def test_rarefaction_refuses_sizes_it_has_no_trials_for(sizes: list[int]) -> None:
    with pytest.raises(QueryError, match="1 … 9"):
        rarefaction([4, 2, 2, 1], sizes)


@pytest.mark.parametrize("counts", [[], [1, 0], [2, -1], [1.5], [float("nan"), 2]])
def test_counts_that_mean_nothing_are_refused(counts: list[Any]) -> None:
    for ask in (rarefaction, good_turing, chao1):
        with pytest.raises(QueryError, match="count"):
            ask(counts)


def test_coverage_formulas() -> None:
    """n = 10, f1 = 2, f2 = 1: C = 1 − 2/10·18/20. f2 = 0: 1 − 2/9·8/10."""
    assert good_turing([6, 2, 1, 1]).value == pytest.approx(1 - 0.2 * 18 / 20)
    assert good_turing([7, 1, 1]).value == pytest.approx(1 - 2 / 9 * 8 / 10)
    none = good_turing([10, 10])
    assert (none.value, none.high) == (1.0, 1.0)
    assert none.low == pytest.approx(0.025 ** (1 / 20))
    assert good_turing([1]).as_dict() == {"value": 0.0, "low": 0.0, "high": 1.0, "level": 0.95}


SHAPES = {
    "equal": np.full(20, 1 / 20),
    "geometric": 0.75 ** np.arange(20) / (0.75 ** np.arange(20)).sum(),
    "harmonic": (1 / np.arange(1, 21)) / (1 / np.arange(1, 21)).sum(),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_lower_limit_of_chao1_stays_below_the_truth(shape: str) -> None:
    """10 seeds a class: truth ≥ lower limit in ≥ 95 % − 3 s.e. of the draws."""
    rng, draws = np.random.default_rng(11), 400
    counts = rng.multinomial(200, SHAPES[shape], draws)
    held = sum(chao1(row[row > 0]).lower_limit <= 20 for row in counts)
    assert held / draws >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / draws)
    seen, unseen, _ = chao1_parts(counts)
    assert shape != "harmonic" or (seen + unseen > 20).mean() > 0.15  # the bound itself does exceed the truth
    alone = [chao1(row[row > 0]).estimate for row in counts[:50]]
    assert alone == pytest.approx((seen + unseen)[:50])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_coverage_interval_holds_the_realised_coverage(shape: str) -> None:
    rng, draws = np.random.default_rng(12), 400
    held = 0
    for row in rng.multinomial(60, SHAPES[shape], draws):
        share = good_turing(row[row > 0])
        held += share.low <= SHAPES[shape][row > 0].sum() + 1e-12 <= share.high + 1e-9
    assert held / draws >= 0.93 - 3 * math.sqrt(0.93 * 0.07 / draws)


def test_a_sweep_is_counted_per_landscape() -> None:
    points = table(["a", "a", "b", "c", "a", "b"], objective=[0.1, 0.1, 0.2, 0.3, 0.1, 0.2])
    points["landscape.hidden"] = "[2]"
    other = points.assign(config="d", trial=[f"d-{k}" for k in range(6)], class_id="z", **{"landscape.hidden": "[3]"})
    counted = count_classes(pd.concat([points, other], ignore_index=True))
    assert [one.n_trials for one in counted.landscapes] == [6, 6]
    mine = next(one for one in counted.landscapes if one.n_classes == 3)
    assert mine.counts == {"a": 3, "b": 2, "c": 1}
    assert (mine.singletons, mine.doubletons, mine.excluded) == (1, 1, {})
    assert mine.coverage is not None and mine.new_next is not None and mine.global_seen is not None
    assert mine.new_next.value == pytest.approx(1 - mine.coverage.value)
    assert mine.new_next.low == pytest.approx(1 - mine.coverage.high)
    assert (mine.global_seen.status, mine.global_seen.times) == ("unknown", 3)
    assert "cannot be derived" in mine.global_seen.statement
    assert mine.rarefaction()["classes"].iloc[-1] == pytest.approx(3)
    assert list(counted.table()["classes"]) == [one.n_classes for one in counted.landscapes]
    assert counted.as_dict()["landscapes"][0]["n_trials"] == 6


def test_the_known_minimum_is_seen_or_not() -> None:
    points = table(["a", "a", "b"], objective=[0.1, 0.1, 0.2])
    seen = count_classes(points, known_minimum=0.1).landscapes[0].global_seen
    missed = count_classes(points, known_minimum=0.0).landscapes[0].global_seen
    wide = count_classes(points, known_minimum=0.0, band=0.15).landscapes[0].global_seen
    trials = points[["config", "trial"]].assign(status="done", attempt=1, error=None, known_minimum=0.1)
    assert count_classes(points, trials).landscapes[0].global_seen == seen
    assert seen is not None and missed is not None and wide is not None
    assert (seen.status, seen.times) == ("seen", 2)
    assert (missed.status, missed.times) == ("not_seen", 0)
    assert (wide.status, wide.times) == ("seen", 2)
    assert missed.missable_share == pytest.approx(1 - 0.05 ** (1 / 3))


def test_every_exclusion_is_stated() -> None:
    points = table(["a", None, "a", "b", "a", "a"], objective=[0.1, 0.1, float("nan"), 0.2, 0.1, 0.1])
    points["kind"] = ["minimum", "minimum", "minimum", "diverged", "degenerate_minimum", "minimum"]
    points.loc[5, "source"] = "trajectory"
    trials = pd.DataFrame(
        {"trial": ["c-9", "x-0"], "config": ["c", "x"], "attempt": 1, "status": "failed", "error": "boom"}
    )
    counted = count_classes(points, trials)
    one = counted.landscapes[0]
    assert one.excluded == {
        "diverged": 1,
        "failed": 1,
        "no class_id": 1,
        "no finite objective": 1,
        "no training point": 1,
    }
    assert (one.n_trials, one.n_degenerate) == (2, 1)
    assert counted.excluded == {"no point in the configuration": 1}


def test_no_minimum_at_all_is_an_answer_without_numbers() -> None:
    counted = count_classes(table([None, None], kind="diverged"))
    one = counted.landscapes[0]
    assert (one.n_trials, one.n_classes, one.chao1, one.coverage, one.new_next, one.global_seen) == (0, 0, *[None] * 4)
    assert one.excluded == {"diverged": 2}
    assert counted.table()["chao1_lower_bound"].isna().all()
    with pytest.raises(QueryError):
        one.rarefaction()


def test_requests_that_mean_nothing() -> None:
    with pytest.raises(QueryError, match="class_id"):
        count_classes(table(["a"]).drop(columns="class_id"))
    with pytest.raises(QueryError, match="objective"):
        count_classes(table(["a"]).drop(columns="objective"))
    with pytest.raises(QueryError, match="level"):
        count_classes(table(["a"]), level=1.0)
    with pytest.raises(QueryError, match="another index"):
        count_classes(table(["a", "b"]), landscape_key=pd.Series(["L"]))


def test_the_figures_draw_the_counts() -> None:
    one = count_classes(table(["a"] * 5 + ["b", "b", "c", "d"])).landscapes[0]
    curve, bars = Figure().add_subplot(), Figure().add_subplot()
    plots_landscape.rarefaction_curve(one, curve)
    plots_landscape.class_counts(one, bars)
    assert curve.get_title() == "Minima seen (n = 9 trials, 4 classes)"
    assert np.asarray(curve.lines[0].get_ydata())[-1] == pytest.approx(4)
    assert any("lower bound" in text.get_text() for text in curve.get_legend().get_texts())  # type: ignore[union-attr]
    assert list(bars.lines[0].get_ydata()) == [5, 2, 1, 1]
    none = count_classes(table(["a"], kind="diverged")).landscapes[0]
    for draw in (plots_landscape.rarefaction_curve, plots_landscape.class_counts):
        ax = Figure().add_subplot()
        draw(none, ax)
        assert "no trial" in ax.texts[0].get_text() and "n = 0" in ax.get_title()
