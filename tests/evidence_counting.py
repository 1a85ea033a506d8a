"""Measures that Chao1's lower limit stays below the truth: ``python -m tests.evidence_counting``."""

from __future__ import annotations

import math

import numpy as np

from landsweep.analysis.counting import chao1

DRAWS = 2000
PER_CLASS = (10, 30)  # seeds a class
CLASSES = (5, 10, 20, 50, 200)
LEVEL = 0.95


def shapes(classes: int) -> dict[str, np.ndarray]:
    """Probabilities of the classes of landscapes with ``classes`` minima, by name."""
    from scipy.stats import norm

    rank = np.arange(1, classes + 1)
    weights = {
        "equal": np.ones(classes),
        "two sizes 10:1": np.where(rank <= classes // 2, 10.0, 1.0),
        "1/sqrt(rank)": rank**-0.5,
        "1/rank": 1.0 / rank,
        "1/rank^2": rank**-2.0,
        "0.9^rank": 0.9**rank,
        "broken stick": np.cumsum(1.0 / rank[::-1])[::-1],
        "log-normal": np.exp(norm.ppf((rank - 0.5) / classes)),
    }
    return {name: weight / weight.sum() for name, weight in weights.items()}


def coverage(counts: np.ndarray, truth: int) -> tuple[float, float]:
    """Shares of the draws in which lower_limit ≤ truth and low ≤ truth ≤ high.

    Only (n, f1, f2, classes seen) matter, and, where no class is estimated to be unseen, the rest: equal draws of the
    first kind are computed once.
    """
    held, inside, known = 0, 0, {}
    for row in counts:
        seen = row[row > 0]
        f1, f2 = int((seen == 1).sum()), int((seen == 2).sum())
        key = (len(seen), f1, f2) if f1 > 1 else tuple(np.sort(seen).tolist())
        if key not in known:
            bound = chao1(seen, LEVEL)
            known[key] = (bound.lower_limit <= truth, bound.low <= truth <= bound.high)
        held += known[key][0]
        inside += known[key][1]
    return held / len(counts), inside / len(counts)


def chao1_lower_limit() -> tuple[str, bool]:
    """The lower 95 % limit is ≤ the truth in ≥ 95 % − 3 s.e. of the draws, at 10 and 30 seeds a class."""
    least = LEVEL - 3 * math.sqrt(LEVEL * (1 - LEVEL) / DRAWS)
    rng = np.random.default_rng(2026)
    rows, worst = [], (1.0, "")
    for classes in CLASSES:
        for name, shares in shapes(classes).items():
            found = [coverage(rng.multinomial(per * classes, shares, DRAWS), classes) for per in PER_CLASS]
            rows.append(f"    {classes:>4} {name:<16}" + "".join(f"  {held:.4f}  {two:.3f}" for held, two in found))
            worst = min(worst, *((held, f"{classes} classes, {name}") for held, _ in found))
    head = "    classes, shares       " + "".join(f"  at {per}: limit, two-sided" for per in PER_CLASS)
    text = (
        f"Chao1's lower 95 % limit ≤ truth in at least {worst[0]:.4f} of {DRAWS} draws ({worst[1]}; "
        f"needed {least:.4f}); its two-sided interval brackets the bound, and holds the truth in the share beside\n"
    )
    return text + "\n".join([head, *rows]), worst[0] >= least


if __name__ == "__main__":
    measured, holds = chao1_lower_limit()
    print(measured)
    raise SystemExit(not holds)
