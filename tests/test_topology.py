"""Morse audit and disconnectivity graph: landscapes whose points are known in full."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy.optimize import fsolve

from landsweep.analysis import plots_landscape
from landsweep.analysis.topology import disconnectivity, morse_audit, sphere_characteristic
from landsweep.workers.errors import QueryError


def audit_table(indices: list[int], dimension: int = 2, **columns: Any) -> pd.DataFrame:
    kinds = {0: "minimum", dimension: "maximum"}
    frame = pd.DataFrame({"index": pd.Series(indices, dtype="Int64"), "config": "c", "n_zero": 0})
    frame["kind"] = [kinds.get(index, "saddle") for index in indices]
    frame["class_id"] = [f"L-{k}" for k in range(len(indices))]
    for name, values in columns.items():
        frame[name] = values
    return frame


def himmelblau() -> list[int]:
    """The indices of all stationary points of (x²+y−11)² + (x+y²−7)², found by Newton from a grid."""

    def gradient(z: np.ndarray) -> list[float]:
        x, y = z
        return [4 * x * (x * x + y - 11) + 2 * (x + y * y - 7), 2 * (x * x + y - 11) + 4 * y * (x + y * y - 7)]

    found: dict[tuple[float, float], int] = {}
    for x in np.linspace(-5, 5, 15):
        for y in np.linspace(-5, 5, 15):
            z, _, ok, _ = fsolve(gradient, [x, y], full_output=True)
            if ok == 1 and np.abs(gradient(z)).max() < 1e-8:
                a, b = z
                hessian = [[12 * a * a + 4 * b - 42, 4 * (a + b)], [4 * (a + b), 12 * b * b + 4 * a - 26]]
                found[round(a, 4), round(b, 4)] = int((np.linalg.eigvalsh(hessian) < 0).sum())
    return sorted(found.values())


def test_himmelblau_adds_up_to_one() -> None:
    indices = himmelblau()
    assert indices == [0] * 4 + [1] * 4 + [2]
    (audit,) = morse_audit(audit_table(indices))
    assert (audit.status, audit.total, audit.by_index) == ("consistent", 1, {0: 4, 1: 4, 2: 1})
    assert "no discrete symmetry" in audit.statement and "may cancel" in audit.statement
    (missing,) = morse_audit(audit_table(indices[:-1]))
    assert (missing.status, missing.total) == ("points_missing", 0)
    assert "at least 1 more" in missing.statement
    assert audit.as_dict()["by_index"] == {"0": 4, "1": 4, "2": 1}


def test_repeats_count_once() -> None:
    points = pd.concat([audit_table([0, 0, 1])] * 3, ignore_index=True)
    assert morse_audit(points)[0].total == 1


def test_the_sphere() -> None:
    """xᵀAx on S²: ± each eigenvector: two minima, two saddles, two maxima; the radius is one zero everywhere."""
    points = audit_table([0, 0, 1, 1, 2, 2], n_zero=1)
    (audit,) = morse_audit(points, euler_characteristic=sphere_characteristic(3), free_directions=1)
    assert (audit.status, audit.total) == ("consistent", 2)
    halves = audit_table([0, 1, 2], n_zero=1)
    (copied,) = morse_audit(halves, euler_characteristic=2, free_directions=1, multiplicity=2)
    assert (copied.status, copied.total) == ("consistent", 2)
    assert "discrete symmetry" not in copied.statement
    assert [sphere_characteristic(n) for n in (1, 2, 3, 4)] == [2, 0, 2, 0]
    with pytest.raises(QueryError):
        sphere_characteristic(0)


def test_an_orbit_needs_its_characteristic() -> None:
    """(x²+y²−1)²: a circle of minima (χ = 0) and one maximum at the origin."""
    points = audit_table([0, 2], n_zero=[1, 0])
    (refused,) = morse_audit(points)
    assert (refused.status, refused.total) == ("not_applicable", None)
    assert any("orbit" in reason for reason in refused.obstacles)
    (audit,) = morse_audit(points, multiplicity={"L-0": 0, "L-1": 1})
    assert (audit.status, audit.total) == ("consistent", 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": ["minimum", "degenerate_saddle", "minimum"]}, "degenerate_saddle"),
        ({"kind": ["undetermined", "saddle", "minimum"]}, "undetermined"),
        ({"index": pd.Series([0, None, 0], dtype="Int64")}, "unknown index or number of zeros"),
        ({"class_id": ["a", "a", "b"]}, "points of one class differ in index or zeros"),
        ({"class_id": ["a", None, "b"]}, "critical points without a class"),
    ],
)
def test_what_forbids_the_audit_is_named(changes: dict[str, Any], reason: str) -> None:
    (audit,) = morse_audit(audit_table([0, 1, 0], **changes))
    assert (audit.status, audit.total) == ("not_applicable", None)
    assert audit.obstacles == {reason: 1}
    assert reason.replace("_", " ") in audit.statement


def test_other_points_are_left_out_and_counted() -> None:
    kinds = ["minimum", "not_converged", "gradient_flat", "diverged", None]
    (audit,) = morse_audit(audit_table([0] * 5, kind=kinds))
    assert (audit.status, audit.n_classes) == ("consistent", 1)
    assert audit.excluded == {"diverged": 1, "gradient_flat": 1, "no kind": 1, "not_converged": 1}
    (none,) = morse_audit(audit_table([0], kind="diverged"))
    assert (none.status, none.total) == ("not_applicable", None)
    assert "no critical point" in none.statement


def test_landscapes_are_audited_alone() -> None:
    points = audit_table([0, 0, 1], config=["c", "c", "d"], **{"landscape.hidden": ["[2]", "[2]", "[3]"]})
    assert sorted(audit.total or 0 for audit in morse_audit(points)) == [-1, 2]


def test_a_multiplicity_must_be_a_count_for_every_class() -> None:
    with pytest.raises(QueryError, match="whole number"):
        morse_audit(audit_table([0]), multiplicity=1.5)  # type: ignore[arg-type]
    (audit,) = morse_audit(audit_table([0, 1]), multiplicity={"L-0": 2})
    assert audit.obstacles == {"no multiplicity given": 1}
    with pytest.raises(QueryError, match="n_zero"):
        morse_audit(audit_table([0]).drop(columns="n_zero"))


def chain(heights: list[float], minima: list[float]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Minima in a row, a saddle between neighbours."""
    names = [f"m{k}" for k in range(len(minima))]
    saddles = [f"s{k}" for k in range(len(heights))]
    points = pd.DataFrame({"point": names + saddles, "objective": minima + heights})
    points["kind"] = ["minimum"] * len(minima) + ["saddle"] * len(heights)
    joined = pd.DataFrame({"saddle": saddles, "minimum_a": names[:-1], "minimum_b": names[1:]})
    joined["barrier_a"] = np.subtract(heights, minima[:-1])
    joined["barrier_b"] = np.subtract(heights, minima[1:])
    return joined, points


def test_a_chain_of_wells() -> None:
    """Wells 0, 1, 2, 3 with passes 5, 4, 6: (1 2) at 4, with 0 at 5, with 3 at 6."""
    joined, points = chain([5.0, 4.0, 6.0], [0.0, 1.0, 2.0, 3.0])
    tree = disconnectivity(joined, points)
    merges = [(node.height, set(node.leaves)) for node in tree.nodes if node.children]
    assert merges == [(4.0, {"m1", "m2"}), (5.0, {"m0", "m1", "m2"}), (6.0, {"m0", "m1", "m2", "m3"})]
    assert (tree.roots, tree.n_connections, tree.excluded) == (("merge-2",), 3, {})
    assert tree.pass_height("m1", "m2") == 4.0
    assert tree.pass_height("m0", "m3") == 6.0
    assert tree.table().set_index("name").loc["m0", "parent"] == "merge-1"
    shuffled = disconnectivity(joined.iloc[::-1], points.sample(frac=1, random_state=1))
    assert shuffled.table().equals(tree.table())
    assert shuffled.as_dict() == tree.as_dict()


def test_a_lower_pass_found_later_wins_and_cycles_do_not_merge_twice() -> None:
    joined, points = chain([5.0, 4.0], [0.0, 1.0, 2.0])
    extra = pd.DataFrame({"saddle": ["s9", "s8"], "minimum_a": "m0", "minimum_b": ["m2", "m1"]})
    extra["barrier_a"], extra["barrier_b"] = [4.5, 9.0], [2.5, 8.0]
    tree = disconnectivity(pd.concat([joined, extra]), points)
    assert [node.height for node in tree.nodes if node.children] == [4.0, 4.5]  # from the barriers: s9 is no point


def test_equal_heights_make_one_node() -> None:
    joined, points = chain([5.0, 5.0 + 1e-12, 5.0], [0.0, 1.0, 2.0, 3.0])
    tree = disconnectivity(joined, points)
    (merge,) = [node for node in tree.nodes if node.children]
    assert merge.children == ("m0", "m1", "m2", "m3")
    assert tree.roots == ("merge-0",)


def test_minima_of_one_class_are_one_leaf_and_islands_stay_apart() -> None:
    joined, points = chain([5.0, 4.0], [0.0, 1.0, 1.0])
    points["class_id"] = ["A", "B", "B", None, None]
    island = pd.DataFrame({"point": ["m9", "m8"], "objective": [-1.0, np.nan], "kind": "minimum", "class_id": None})
    tree = disconnectivity(joined, pd.concat([points, island], ignore_index=True))
    assert tree.excluded == {"joins a minimum with itself": 1}
    assert tree.roots == ("m9", "merge-0")
    assert math.isinf(tree.pass_height("A", "m9"))
    with pytest.raises(QueryError, match="no minimum 'zz'"):
        tree.pass_height("A", "zz")


def test_connections_that_cannot_be_are_counted() -> None:
    joined, points = chain([0.5, math.nan, 4.0, 3.0], [0.0, 1.0, 2.0, 3.0, math.nan])
    tree = disconnectivity(joined, points)
    assert tree.excluded == {
        "a minimum is not among the points": 1,
        "no finite height": 1,
        "the saddle is not above both minima": 1,
    }
    assert tree.n_connections == 1


def test_an_empty_table_gives_isolated_minima_and_none_at_all_a_message() -> None:
    joined, points = chain([5.0], [0.0, 1.0])
    assert disconnectivity(joined.iloc[:0], points).roots == ("m0", "m1")
    with pytest.raises(QueryError, match="no minimum"):
        disconnectivity(joined, points[points["kind"] == "saddle"])
    with pytest.raises(QueryError, match="barrier_a"):
        disconnectivity(joined.drop(columns="barrier_a"), points)
    with pytest.raises(QueryError, match="objective"):
        disconnectivity(joined, points.drop(columns="objective"))


def test_the_figures_draw_the_tree_and_the_audit() -> None:
    joined, points = chain([5.0, 4.0, 6.0], [0.0, 1.0, 2.0, 3.0])
    tree, ax = disconnectivity(joined, points), Figure().add_subplot()
    plots_landscape.disconnectivity_graph(tree, ax)
    level = [line.get_ydata() for line in ax.lines if len(set(line.get_ydata())) == 1 and len(line.get_ydata()) == 2]
    assert sorted(float(y[0]) for y in level) == [4.0, 5.0, 6.0]  # type: ignore[index]
    assert ax.get_title() == "Disconnectivity (n = 4 minima, 3 connections)"
    bars = Figure().add_subplot()
    plots_landscape.morse_counts(morse_audit(audit_table([0, 0, 1]))[0], bars)
    assert [patch.get_height() for patch in bars.patches] == [2, 1]
    assert bars.get_title() == "Morse audit: Σ = 1, χ = 1 (n = 3 classes)"
    refused = Figure().add_subplot()
    plots_landscape.morse_counts(morse_audit(audit_table([0], kind="undetermined"))[0], refused)
    assert "does not apply" in refused.get_title()
