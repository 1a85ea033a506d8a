"""Topology of a landscape as found: the Morse audit of its stationary points, and its disconnectivity graph."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from landsweep.analysis.groups import landscape_keys
from landsweep.workers.errors import QueryError
from landsweep.workers.record import CRITICAL_KINDS

_NONDEGENERATE = ("minimum", "saddle", "maximum")
_SAME_HEIGHT = 1e-9  # relative to max(1, |height|): saddles of one class differ by rounding


@dataclass(frozen=True)
class MorseAudit:
    """Σ(−1)^index over the distinct stationary points of one landscape against the Euler characteristic."""

    landscape: str
    status: str  # consistent | points_missing | not_applicable
    statement: str
    total: int | None  # Σ multiplicity·(−1)^index; None where the audit does not apply
    euler_characteristic: int
    by_index: dict[int, int]  # distinct classes of nondegenerate points by index
    n_classes: int  # distinct classes of critical points, nondegenerate or not
    obstacles: dict[str, int]  # classes that forbid the audit, by reason
    excluded: dict[str, int]  # points without a class or that are no critical points, by reason

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {**asdict(self), "by_index": {str(index): count for index, count in self.by_index.items()}}


@dataclass(frozen=True)
class Node:
    """A minimum (leaf) or the height at which superbasins merge."""

    name: str  # of a leaf its class (or point); of a merge "merge-<k>", k rising with the height
    height: float  # objective of the minimum, or of the lowest saddle that joins the children
    children: tuple[str, ...]  # names; empty for a leaf
    leaves: tuple[str, ...]  # minima below, in the order of drawing


@dataclass(frozen=True)
class Disconnectivity:
    """The tree (a forest where saddles that join all minima are missing) of superbasins."""

    nodes: tuple[Node, ...]  # leaves by height, then merges by height
    roots: tuple[str, ...]  # one for each connected set of minima, the lowest first
    n_connections: int  # that the tree rests on
    excluded: dict[str, int]  # connections by reason

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return asdict(self)

    def table(self) -> pd.DataFrame:
        """One row a node: name, height, kind (minimum | merge), parent (null at a root), n_leaves."""
        parent = {child: node.name for node in self.nodes for child in node.children}
        return pd.DataFrame(
            [
                {
                    "name": node.name,
                    "height": node.height,
                    "kind": "merge" if node.children else "minimum",
                    "parent": parent.get(node.name),
                    "n_leaves": len(node.leaves),
                }
                for node in self.nodes
            ],
            columns=["name", "height", "kind", "parent", "n_leaves"],
        )

    def pass_height(self, a: str, b: str) -> float:
        """The lowest height at which a path between minima ``a`` and ``b`` is known; inf where none is.

        Raises QueryError where one of them is no minimum of the tree.
        """
        leaves = {node.name for node in self.nodes if not node.children}
        for name in (a, b):
            if name not in leaves:
                raise QueryError(f"the disconnectivity graph has no minimum {name!r}; its minima are in .table()")
        joined = [node.height for node in self.nodes if a in node.leaves and b in node.leaves]
        return min(joined, default=math.inf)


def sphere_characteristic(n: int) -> int:
    """Euler characteristic of the sphere S^{n−1} in Rⁿ: 1 + (−1)^{n−1}.

    >>> sphere_characteristic(3), sphere_characteristic(2)
    (2, 0)
    """
    if n < 1:
        raise QueryError(f"the sphere S^(n-1) needs n of at least 1; found {n}")
    return 2 if n % 2 else 0


def morse_audit(
    points: pd.DataFrame,
    *,
    euler_characteristic: int = 1,
    multiplicity: Mapping[str, int] | int | None = None,
    free_directions: int = 0,
    landscape_key: pd.Series | None = None,
) -> tuple[MorseAudit, ...]:
    """Check Σ(−1)^index over the distinct stationary points of every landscape against its Euler characteristic χ.

    If all stationary points of a coercive smooth function on Rⁿ are found and nondegenerate the sum is 1; on S^{n−1} it
    is 1 + (−1)^{n−1} (``sphere_characteristic``). A sum that differs says that at least |Σ − χ| more points exist; a
    sum that agrees proves nothing: missing points may cancel.

    ``class_id`` counts copies under a discrete symmetry (permuted hidden units, flipped signs) as one, so without
    ``multiplicity`` the audit holds for landscapes without discrete symmetry alone. multiplicity: copies of each class
    (one number for all, or one per class_id); of a class that is a whole orbit of a continuous symmetry the orbit's own
    Euler characteristic, which may be 0 (Morse–Bott). free_directions: zero eigenvalues that every point owes to the
    way the space is parametrised (1 on a sphere, whose radius is a direction of no change).

    It does not apply where a class is degenerate or undetermined, has an unknown index, or zero eigenvalues beyond
    ``free_directions`` and no multiplicity.

    points: columns ``config kind index n_zero class_id``, all sources. One result a landscape, ordered by its key.
    Raises QueryError where a column is missing or a multiplicity is no whole number.
    Source: Milnor, Morse Theory (1963) §5; Bott, Ann. Math. 60 (1954) 248–261.
    """
    need(points, ("config", "kind", "index", "n_zero", "class_id"), "a Morse audit")
    for value in multiplicity.values() if isinstance(multiplicity, Mapping) else [multiplicity or 0]:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise QueryError(f"a multiplicity is {value!r}: it must be a whole number of copies")
    keys = landscape_keys(points, landscape_key)
    return tuple(
        _audit(str(key), points[keys == key], euler_characteristic, multiplicity, free_directions)
        for key in sorted(set(keys))
    )


def disconnectivity(connections: pd.DataFrame, points: pd.DataFrame) -> Disconnectivity:
    """Merge minima into superbasins at the heights of the lowest saddles that join them.

    The tree of Becker & Karplus (J. Chem. Phys. 106 (1997) 1495–1517; Wales, Miller & Walsh, Nature 394 (1998)
    758–760) at every height: saddles from the lowest up, union–find over minima; saddles of equal height (to 1e-9)
    that meet merge their basins in one node. A saddle's height is its objective, or, where ``points`` does not have
    it, the higher of objective(a) + barrier_a and objective(b) + barrier_b.

    connections: columns ``saddle minimum_a minimum_b barrier_a barrier_b`` (ids of points; barriers in units of the
    objective). points: ``point kind objective``, and ``class_id`` where minima of one class shall be one leaf (its
    objective: the lowest). Every minimum of ``points`` is a leaf, joined or not. Pass one landscape's points.

    Left out and counted: connections to unknown points, of a minimum with itself (or its symmetric copies), without a
    height, or whose saddle is not above both minima. Raises QueryError where a column is missing or no minimum is left.
    """
    need(connections, ("saddle", "minimum_a", "minimum_b", "barrier_a", "barrier_b"), "a disconnectivity graph", "rows")
    need(points, ("point", "kind", "objective"), "a disconnectivity graph")
    objective = _objectives(points)
    name = _names(points, objective)
    leaves: dict[str, float] = {}
    for point, leaf in name.items():
        leaves[leaf] = min(leaves.get(leaf, math.inf), objective[point])
    if not leaves:
        raise QueryError("there is no minimum with a finite objective among the points: nothing to draw")
    excluded: Counter[str] = Counter()
    edges: list[tuple[float, str, str]] = []
    for row in connections[["saddle", "minimum_a", "minimum_b", "barrier_a", "barrier_b"]].itertuples(index=False):
        a, b = name.get(str(row.minimum_a)), name.get(str(row.minimum_b))
        if a is None or b is None:
            excluded["a minimum is not among the points"] += 1
            continue
        height = objective.get(str(row.saddle), math.nan)
        if not math.isfinite(height):
            ends = ((row.minimum_a, row.barrier_a), (row.minimum_b, row.barrier_b))
            height = max((objective[str(end)] + _number(barrier) for end, barrier in ends), key=_nan_low)
        reason = _unusable(a, b, height, leaves)
        if reason:
            excluded[reason] += 1
        else:
            edges.append((height, a, b))
    nodes, roots = _merge(leaves, sorted(edges))
    return Disconnectivity(nodes, roots, len(edges), dict(sorted(excluded.items())))


def need(table: pd.DataFrame, columns: Iterable[str], purpose: str, what: str = "points") -> None:
    """Raises QueryError where ``table`` lacks one of ``columns``."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise QueryError(f"the {what} lack the columns {', '.join(missing)}, which {purpose} reads")


def _audit(
    key: str, points: pd.DataFrame, euler: int, multiplicity: Mapping[str, int] | int | None, free: int
) -> MorseAudit:
    kinds = points["kind"].astype(object).where(points["kind"].notna(), "no kind").astype(str)
    critical = kinds.isin(CRITICAL_KINDS)
    classed = critical & points["class_id"].notna()
    excluded = Counter(kinds[~critical])
    excluded.update({"no class_id": int((critical & ~classed).sum())} if (critical & ~classed).any() else {})
    by_index: Counter[int] = Counter()
    obstacles: Counter[str] = Counter()
    total, count = 0, 0
    for name, rows in points[classed].assign(kind=kinds[classed]).groupby("class_id", sort=True):
        count += 1
        copies = multiplicity.get(str(name)) if isinstance(multiplicity, Mapping) else multiplicity
        reason = _obstacle(rows, copies, isinstance(multiplicity, Mapping), free)
        if reason:
            obstacles[reason] += 1
            continue
        index = int(rows["index"].iloc[0])
        by_index[index] += 1
        total += (1 if copies is None else copies) * (-1) ** index
    if "no class_id" in excluded:
        obstacles["critical points without a class"] = excluded["no class_id"]
    applies = count > 0 and not obstacles
    status = ("consistent" if total == euler else "points_missing") if applies else "not_applicable"
    return MorseAudit(
        landscape=key,
        status=status,
        statement=_statement(status, total, euler, count, obstacles, multiplicity is not None),
        total=total if applies else None,
        euler_characteristic=euler,
        by_index=dict(sorted(by_index.items())),
        n_classes=count,
        obstacles=dict(sorted(obstacles.items())),
        excluded=dict(sorted(excluded.items())),
    )


def _obstacle(rows: pd.DataFrame, copies: int | None, mapped: bool, free: int) -> str:
    """Why a class cannot be counted; empty where it can."""
    other = sorted(set(rows["kind"]) - set(_NONDEGENERATE))
    if other:
        return str(other[0])
    if rows["index"].isna().any() or rows["n_zero"].isna().any():
        return "unknown index or number of zeros"
    if rows["index"].nunique() > 1 or rows["n_zero"].nunique() > 1:
        return "points of one class differ in index or zeros"
    if mapped and copies is None:
        return "no multiplicity given"
    if int(rows["n_zero"].iloc[0]) > free and copies is None:
        return "zero eigenvalues: an orbit, whose Euler characteristic is not given"
    return ""


def _statement(status: str, total: int, euler: int, count: int, obstacles: Mapping[str, int], given: bool) -> str:
    if status == "not_applicable":
        if not count and not obstacles:
            return "not applicable: no critical point with a class was found"
        listed = ", ".join(f"{number} × {reason.replace('_', ' ')}" for reason, number in sorted(obstacles.items()))
        return f"not applicable: {listed}"
    condition = "" if given else "; holds where the landscape has no discrete symmetry, whose copies count as one class"
    if status == "consistent":
        return f"consistent: Σ(−1)^index = {total} = χ over {count} classes; missing points may cancel{condition}"
    return (
        f"points are missing: Σ(−1)^index = {total} over {count} classes, χ = {euler}: at least {abs(total - euler)} "
        f"more exist{condition}"
    )


def _objectives(points: pd.DataFrame) -> dict[str, float]:
    values = pd.to_numeric(points["objective"]).to_numpy(dtype=np.float64, na_value=np.nan)
    return {str(p): float(value) for p, value in zip(points["point"], values, strict=True) if np.isfinite(value)}


def _names(points: pd.DataFrame, objective: Mapping[str, float]) -> dict[str, str]:
    """Minimum → leaf: its class, or itself where it has none."""
    minima = points[points["kind"].isin(["minimum", "degenerate_minimum"])]
    classes = minima["class_id"] if "class_id" in minima.columns else pd.Series(None, index=minima.index, dtype=object)
    pairs = zip(minima["point"].astype(str), classes, strict=True)
    return {point: point if pd.isna(name) else str(name) for point, name in pairs if point in objective}


def _number(value: object) -> float:
    return math.nan if pd.isna(value) else float(value)  # type: ignore[arg-type, call-overload]


def _nan_low(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def _unusable(a: str, b: str, height: float, leaves: Mapping[str, float]) -> str:
    if not math.isfinite(height):
        return "no finite height"
    if a == b:
        return "joins a minimum with itself"
    return "the saddle is not above both minima" if height < max(leaves[a], leaves[b]) else ""


def _merge(
    leaves: Mapping[str, float], edges: list[tuple[float, str, str]]
) -> tuple[tuple[Node, ...], tuple[str, ...]]:
    """Union–find over minima, edges from the lowest up."""
    top = {leaf: leaf for leaf in leaves}  # leaf → leaf nearer to its set's representative
    nodes = {
        leaf: Node(leaf, height, (), (leaf,)) for leaf, height in sorted(leaves.items(), key=lambda i: (i[1], i[0]))
    }
    node_of = {leaf: leaf for leaf in leaves}  # representative → node at the top of its superbasin
    merges = 0

    def find(leaf: str) -> str:
        while top[leaf] != leaf:
            top[leaf] = top[top[leaf]]
            leaf = top[leaf]
        return leaf

    for height, a, b in edges:
        first, second = find(a), find(b)
        if first == second:
            continue
        below = [nodes[node_of[first]], nodes[node_of[second]]]
        tolerance = _SAME_HEIGHT * max(1.0, abs(height))
        children: list[str] = []
        for node in below:  # a merge at the same height is the same superbasin
            same = bool(node.children) and height - node.height <= tolerance
            children += node.children if same else (node.name,)
            if same:
                del nodes[node.name]
        children.sort(key=lambda child: (min(leaves[leaf] for leaf in nodes[child].leaves), child))
        merges += 1
        node = Node(f"merge-{merges}", height, tuple(children), tuple(x for c in children for x in nodes[c].leaves))
        nodes[node.name] = node
        top[second] = first
        node_of[first] = node.name
    roots = {node_of[find(leaf)] for leaf in leaves}
    order = sorted(roots, key=lambda name: (min(leaves[leaf] for leaf in nodes[name].leaves), name))
    return _renumbered(nodes, order)


def _renumbered(nodes: Mapping[str, Node], roots: list[str]) -> tuple[tuple[Node, ...], tuple[str, ...]]:
    """Merges are named in the order of their heights, without the gaps that equal heights left."""
    names = {name: name for name, node in nodes.items() if not node.children}
    merged = [name for name, node in nodes.items() if node.children]
    names |= {name: f"merge-{place}" for place, name in enumerate(merged)}
    kept = tuple(
        Node(names[node.name], node.height, tuple(names[child] for child in node.children), node.leaves)
        for node in nodes.values()
    )
    return kept, tuple(names[root] for root in roots)
