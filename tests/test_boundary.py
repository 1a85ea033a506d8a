"""Steps in a trust region and inertia by factors, against the secular equation and eigensystems."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from landsweep.workers.boundary import boundary_step, is_positive, is_regular, negative_count, solved
from tests.surfaces import points


def lowest_model(eigenvalues: np.ndarray, c: np.ndarray, radius: float) -> float:
    """The lowest model value, by the secular equation in scipy's brentq, hard case included."""
    low = max(0.0, -eigenvalues[0])
    gaps = eigenvalues + low

    def q(shift: float) -> np.ndarray:
        return -c / (gaps + shift)

    def model(step: np.ndarray) -> float:
        return float(c @ step + 0.5 * step @ (eigenvalues * step))

    if eigenvalues[0] > 0 and np.linalg.norm(q(0.0)) <= radius:
        return model(q(0.0))
    if np.linalg.norm(q(1e-18)) > radius:
        high = np.linalg.norm(c) / radius + 1.0
        return model(q(optimize.brentq(lambda s: np.linalg.norm(q(s)) - radius, 1e-18, high, xtol=1e-30)))
    flat = np.abs(eigenvalues + low) < 1e-9
    step = np.where(flat, 0.0, -c / np.where(flat, 1.0, eigenvalues + low))
    step[0] += np.sqrt(max(0.0, radius**2 - step @ step)) * (-1 if c[0] > 0 else 1)
    return model(step)


def rotated(values: np.ndarray, c: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """H = QΛQᵀ and g = Qc with a random orthogonal Q."""
    size = len(values)
    q = stats.ortho_group.rvs(size, random_state=seed) if size > 1 else np.ones((1, 1))
    hessian = q * values @ q.T
    return 0.5 * (hessian + hessian.T), q @ c


def step_of(hessian: np.ndarray, gradient: np.ndarray, radius: float) -> np.ndarray:
    lowest = np.linalg.eigvalsh(hessian)[0]
    small = max(1e-9 * np.linalg.norm(hessian), np.finfo(float).tiny)  # as a search asks for
    least = torch.tensor([0.0 if lowest > 1e-9 else small if lowest > -1e-10 else np.nan], dtype=torch.float64)
    given_radius = torch.tensor([radius], dtype=torch.float64)
    return boundary_step(torch.from_numpy(hessian)[None], torch.from_numpy(gradient)[None], given_radius, least)[
        0
    ].numpy()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-3, 3), st.floats(-2, 2)), min_size=1, max_size=5),
    st.floats(1e-3, 10),
    st.sampled_from(["general", "hard", "nearly hard", "zero"]),
)
def test_step_against_the_secular_equation(pairs: list[tuple[float, float]], radius: float, case: str) -> None:
    values = np.sort(np.round([pair[0] for pair in pairs], 3))
    c = np.round([pair[1] for pair in pairs], 3)
    if case != "general":
        factor = {"hard": 0.0, "nearly hard": 1e-12, "zero": 0.0}[case]
        lowest = np.abs(values - values[0]) < 1e-9
        c = c * np.where(lowest, factor, 0.0 if case == "zero" else 1.0)
    hessian, gradient = rotated(values, c)
    p = step_of(hessian, gradient, radius)
    assert np.linalg.norm(p) <= radius * (1 + 1e-9)
    ours, best = gradient @ p + 0.5 * p @ hessian @ p, lowest_model(values, c, radius)
    assert ours <= best + 1e-6 * (abs(best) + 1e-9)
    rng = np.random.default_rng(0)
    trial = rng.normal(size=(500, len(c)))
    trial *= radius * rng.random((500, 1)) / np.linalg.norm(trial, axis=1, keepdims=True)
    assert ours <= (trial @ c + 0.5 * (trial**2) @ values).min() + 1e-9


@pytest.mark.parametrize("size", [40, 200])
def test_steps_of_several_hessians_at_once_against_the_secular_equation(size: int) -> None:
    rng = np.random.default_rng(size)
    several = [(np.sort(rng.normal(shift, 1.0, size)), rng.normal(size=size)) for shift in (-1.0, 0.0, 2.0, 8.0)]
    hard = several[0][1].copy()
    hard[0] = 0.0
    several.append((several[0][0], 1e-3 * hard))
    both = [rotated(values, c, seed) for seed, (values, c) in enumerate(several)]
    hessians, gradients = (torch.from_numpy(np.stack(parts)) for parts in zip(*both, strict=True))
    least = torch.tensor([0.0 if values[0] > 0 else np.nan for values, _ in several], dtype=torch.float64)
    for radius in (1e-2, 0.5, 5.0):
        p = boundary_step(hessians, gradients, torch.full((len(several),), radius, dtype=torch.float64), least)
        ours = (gradients * p).sum(1) + 0.5 * torch.einsum("bi,bij,bj->b", p, hessians, p)
        best = torch.tensor([lowest_model(values, c, radius) for values, c in several], dtype=torch.float64)
        torch.testing.assert_close(ours, best, rtol=1e-6, atol=1e-12)
        assert float(p.norm(dim=1).max()) <= radius * (1 + 1e-9)


def test_a_step_in_the_hard_case_reaches_the_boundary() -> None:
    hessians = torch.diag_embed(points([-1.0, 2.0], [-1.0, 2.0], [-1.0, -1.0]))
    gradients = points([0.0, 0.3], [1e-17, 0.3], [0.0, 0.0])
    nan = torch.full((3,), torch.nan, dtype=torch.float64)
    p = boundary_step(hessians, gradients, torch.full((3,), 0.5, dtype=torch.float64), nan)
    torch.testing.assert_close(p.norm(dim=1), torch.full((3,), 0.5, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(p[0, 1], torch.tensor(-0.1, dtype=torch.float64), rtol=1e-9, atol=0)
    assert float(p[1, 0]) < 0, "away from the gradient"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=8), st.integers(0, 99))
@example([0.0, 0.0], 0)
def test_inertia_and_solutions_by_factors_are_those_of_the_eigensystem(values: list[float], seed: int) -> None:
    rounded = np.round(np.array(values), 3)
    hessian, right = rotated(rounded, np.ones(len(values)), seed)
    h, b, zero = torch.from_numpy(hessian)[None], torch.from_numpy(right)[None], torch.zeros(1, dtype=torch.float64)
    cutoff = zero + 5e-4
    assert int(negative_count(h, cutoff)[0]) == int((rounded < -5e-4).sum())
    assert bool(is_positive(h, -cutoff)[0]) == bool((rounded > 5e-4).all())
    assert bool(is_regular(h, cutoff)[0]) == bool((np.abs(rounded) > 5e-4).all())
    if (np.abs(rounded) > 5e-4).all():
        np.testing.assert_allclose(hessian @ solved(h, b)[0].numpy(), right, rtol=0, atol=1e-9)
