"""The ReLU student–teacher: its loss, derivatives near coincidence, bounds, and its known minima and saddles."""

from __future__ import annotations

import math
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, vmap

from landsweep.workers import search
from landsweep.workers.classify import Classified, classify
from landsweep.workers.eigenvector_following import EigenvectorFollowing
from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import Landscape
from landsweep.workers.reference import student_teacher as reference
from landsweep.workers.reference.student_teacher import student_teacher
from landsweep.workers.trust_region import TrustRegionNewton
from tests.surfaces import ended, found, normal, scale_at

pytestmark = pytest.mark.usefixtures("one_thread")

TOLERANCE = 1e-8
PUBLISHED = {6: (0.025081, 0.0047), 8: (0.021508, 0.0213)}  # loss and λ_min (Safran & Shamir 2018, table 1)


def starts(landscape: Landscape, rows: int) -> Tensor:
    return torch.stack([landscape.init(torch.Generator().manual_seed(seed)) for seed in range(rows)])


def classified(landscape: Landscape, theta: Tensor) -> Classified:
    scale = torch.maximum(scale_at(landscape, theta), torch.ones(len(theta), dtype=torch.float64))
    return classify(landscape, theta, ended(theta), scale, torch.arange(len(theta)), TOLERANCE)


def plain(theta: Tensor, n: int, k: int) -> Tensor:
    """F by arccos, differentiable away from coincidences only."""
    students, teachers = theta.view(n, k), torch.eye(k, dtype=theta.dtype)

    def f(w: Tensor, v: Tensor) -> Tensor:
        angle = torch.acos((w * v).sum() / (w.norm() * v.norm()))
        return w.norm() * v.norm() * (torch.sin(angle) + (math.pi - angle) * torch.cos(angle)) / (2 * math.pi)

    total = theta.new_tensor(k / 4 + k * (k - 1) / (4 * math.pi))
    for i in range(n):
        total = total + 0.25 * (students[i] ** 2).sum()
        total = total + sum(f(students[i], students[j]) for j in range(i)) - sum(f(students[i], v) for v in teachers)
    return total


# --- derivatives to 40 digits ------------------------------------------------------------------------------------
def exact_pair(w: list[mpmath.mpf], v: list[mpmath.mpf]) -> mpmath.mpf:
    first, second = mpmath.sqrt(mpmath.fdot(w, w)), mpmath.sqrt(mpmath.fdot(v, v))
    cosine = mpmath.fdot(w, v) / (first * second)
    angle = mpmath.acos(max(-1, min(1, cosine)))
    return first * second * (mpmath.sqrt(abs(1 - cosine**2)) + (mpmath.pi - angle) * cosine) / (2 * mpmath.pi)


def differences(place: list[mpmath.mpf], moving: int, second: list[mpmath.mpf]) -> mpmath.matrix:
    """The Hessian of f in w (``moving`` = k) or in (w, v) (2k), by central differences of 1e-18 in 60 digits."""
    h, dim = mpmath.mpf(10) ** -18, len(place)

    def at(shift: dict[int, int]) -> mpmath.mpf:
        moved = [*place, *second]
        for index, sign in shift.items():
            moved[index] += sign * h
        return exact_pair(moved[:dim], moved[dim:])

    result, centre = mpmath.zeros(moving), at({})
    for i in range(moving):
        result[i, i] = (at({i: 1}) - 2 * centre + at({i: -1})) / h**2
        for j in range(i):
            corners = at({i: 1, j: 1}) - at({i: 1, j: -1}) - at({i: -1, j: 1}) + at({i: -1, j: -1})
            result[i, j] = result[j, i] = corners / (4 * h**2)
    return result


def exact_hessian(students: Tensor) -> mpmath.matrix:
    """∇²F from second differences of F's pair terms alone."""
    n, k = students.shape
    with mpmath.workdps(60):
        rows = [[mpmath.mpf(float(entry)) for entry in row] for row in students]
        result = mpmath.eye(n * k) / 2
        for i in range(n):
            for j in range(k):
                teacher = [mpmath.mpf(int(j == axis)) for axis in range(k)]
                add(result, -differences(rows[i], k, teacher), [i], k)
            for j in range(i):
                add(result, differences(rows[i], 2 * k, rows[j]), [i, j], k)
    return result


def add(total: mpmath.matrix, part: mpmath.matrix, students: list[int], k: int) -> None:
    places = [student * k + axis for student in students for axis in range(k)]
    for a, row in enumerate(places):
        for b, column in enumerate(places):
            total[row, column] += part[a, b]


def as_array(matrix: mpmath.matrix) -> np.ndarray:
    return np.array([[float(entry) for entry in matrix[row, :]] for row in range(matrix.rows)])


# --- the loss and its derivatives ----------------------------------------------------------------------------------
def test_loss_is_half_the_mean_squared_difference_over_gaussian_inputs() -> None:
    """In two dimensions E h(x) = E‖x‖²·(mean of h over the circle) for h of degree 2; periodic trapezoid rule."""
    landscape = student_teacher(3, 2)
    angle = torch.arange(200_000, dtype=torch.float64) * (2 * math.pi / 200_000)
    inputs = torch.stack([angle.cos(), angle.sin()], 1)
    for theta in starts(landscape, 4):
        outputs = (inputs @ theta.view(3, 2).T).clamp_min(0).sum(1) - inputs.clamp_min(0).sum(1)
        assert float(landscape.loss(theta)) == pytest.approx(float((outputs**2).mean()), abs=1e-9)


def test_derivatives_agree_with_autodiff_of_the_plain_formula() -> None:
    landscape = student_teacher(4, 3)
    theta = starts(landscape, 6)

    def rival(row: Tensor) -> Tensor:
        return plain(row, 4, 3)

    torch.testing.assert_close(landscape.objective(theta), vmap(rival)(theta), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(landscape.gradient(theta), vmap(grad(rival))(theta), rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(landscape.hessian(theta), vmap(hessian(rival))(theta), rtol=1e-10, atol=1e-11)
    vectors = torch.randn(6, 12, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(
        landscape.hvp(theta, vectors), landscape.hessian(theta) @ vectors, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("distance", [0.0, 1e-15, 1e-11, 1e-7, 1e-3])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_hessian_is_exact_near_coincidence_and_opposition(distance: float, sign: float) -> None:
    """Students at ``distance`` from ± a teacher and ± a multiple of each other, against 60 digits."""
    landscape = student_teacher(3, 2)
    base = torch.tensor([[1.0, 0.0], [sign * 1.5, 0.0], [0.3, sign * 0.4]], dtype=torch.float64)
    theta = (base + distance * normal(3, 2, seed=3)).reshape(1, -1)
    exact = as_array(exact_hessian(theta.view(3, 2)))
    np.testing.assert_allclose(landscape.hessian(theta)[0].numpy(), exact, rtol=0, atol=1e-13)
    automatic = vmap(hessian(landscape.loss))(theta)[0]
    np.testing.assert_allclose(automatic.numpy(), exact, rtol=0, atol=1e-13)
    identity = torch.eye(6, dtype=torch.float64).unsqueeze(0)
    np.testing.assert_allclose(landscape.hvp(theta, identity)[0].numpy(), exact, rtol=0, atol=1e-13)


def test_global_minimum_is_a_certified_minimum_of_loss_zero() -> None:
    landscape = student_teacher(6, 6)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    theta = torch.stack([torch.eye(6, dtype=torch.float64), torch.eye(6, dtype=torch.float64)[order]]).view(2, 36)
    assert float(landscape.objective(theta).abs().max()) < 1e-14
    assert float(landscape.gradient(theta).norm(dim=1).max()) < 1e-15
    # blocks (π/2·I + vᵢvⱼᵀ + vⱼvᵢᵀ)/2π off the diagonal, where φ = π/2, and ½I on it, where teachers cancel students
    blocks = landscape.hessian(theta[:1])[0].view(6, 6, 6, 6)
    axes = torch.eye(6, dtype=torch.float64)
    expected = (math.pi / 2 * axes + torch.outer(axes[0], axes[1]) + torch.outer(axes[1], axes[0])) / (2 * math.pi)
    torch.testing.assert_close(blocks[0, :, 1, :], expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(blocks[2, :, 2, :], 0.5 * axes, rtol=0, atol=1e-15)
    result = classified(landscape, theta)
    assert result.kind == ["minimum"] * 2 and all(result.certificates.certified)
    assert landscape.known_class is not None
    assert [getattr(landscape.known_class(row), "name", None) for row in theta] == ["global minimum"] * 2
    assert landscape.known_class(theta[0] + 1e-4) is None


def test_outputs_and_loss_do_not_depend_on_the_order_of_students() -> None:
    landscape = student_teacher(5, 4)
    theta = starts(landscape, 3)
    shuffled = theta.view(3, 5, 4)[:, torch.tensor([3, 0, 4, 1, 2])].reshape(3, 20)
    assert landscape.outputs is not None
    torch.testing.assert_close(landscape.map(landscape.outputs, theta), landscape.map(landscape.outputs, shuffled))
    torch.testing.assert_close(landscape.objective(theta), landscape.objective(shuffled), rtol=1e-13, atol=0)
    assert float((landscape.outputs(theta[0]) - landscape.outputs(theta[1])).norm()) > 0.1


def test_a_row_does_not_depend_on_its_batch_mates() -> None:
    landscape = student_teacher(6, 6)
    theta = starts(landscape, 9)
    for function in (landscape.objective, landscape.gradient, landscape.hessian):
        assert torch.equal(function(theta)[4:5], function(theta[4:5]))


# --- the Lipschitz bound -----------------------------------------------------------------------------------------
def constants(landscape: Landscape, theta: Tensor, radius: float) -> Tensor:
    assert callable(landscape.hessian_lipschitz)
    return vmap(landscape.hessian_lipschitz)(theta, torch.full((len(theta),), radius, dtype=torch.float64))


@pytest.mark.parametrize("radius", [1e-6, 1e-2, 0.2])
def test_hessian_changes_no_faster_than_the_bound(radius: float) -> None:
    """At random places, at the global minimum, where third derivatives jump, and along the steepest directions."""
    landscape = student_teacher(3, 3)
    centres = torch.cat([starts(landscape, 200), torch.eye(3, dtype=torch.float64).view(1, 9).expand(100, 9)])
    bound = constants(landscape, centres, radius)
    steps = [radius * torch.nn.functional.normalize(normal(300, 9, seed), dim=1) for seed in range(4)]
    quotients = []
    for a, b in pairwise([*steps, -steps[0]]):
        change = landscape.hessian(centres + a) - landscape.hessian(centres + b)
        quotients.append(torch.linalg.matrix_norm(change, 2) / (a - b).norm(dim=1))
    worst = (torch.stack(quotients) / bound).amax(0)
    assert float(worst.max()) <= 1.0
    assert float(worst.max()) > 0.01  # and the bound is of the right size


def test_third_derivatives_of_a_pair_have_the_norms_of_the_docstring() -> None:
    """At φ = 60° the bound 3√3/2·‖v‖/(2π‖w‖²) is attained, by one student of length ½ whose teacher is at 60°."""
    students = torch.tensor([[0.25, 0.25 * math.sqrt(3)]], dtype=torch.float64)
    unit, normal_to = students[0] / 0.5, torch.tensor([math.sqrt(3) / 2, -0.5], dtype=torch.float64)
    direction = (0.5 * unit + math.sqrt(0.75) * normal_to).unsqueeze(0)  # α = ½, β² = ¾
    step = 1e-6 * direction
    teacher = torch.tensor([[1.0, 0.0]], dtype=torch.float64)

    def slope(where: Tensor) -> Tensor:
        return reference._gradients(where.unsqueeze(0), teacher.unsqueeze(0))[0, 0, 0]

    second = [vmap(torch.func.jacfwd(slope))(students + sign * step)[0] for sign in (1.0, -1.0)]
    third = ((second[0] - second[1]) / 2e-6 * direction.T * direction).sum()
    assert float(third.abs()) == pytest.approx(reference.THIRD / (2 * math.pi * 0.25), rel=1e-6)


def test_bound_is_infinite_where_a_student_can_vanish() -> None:
    landscape = student_teacher(2, 2)
    theta = torch.tensor([[0.3, 0.4, 1.0, 1.0]], dtype=torch.float64)
    assert float(constants(landscape, theta, 0.49)) < math.inf
    assert float(constants(landscape, theta, 0.51)) == math.inf


# --- minima ------------------------------------------------------------------------------------------------------
def spurious(size: int) -> Tensor:
    """The spurious minimum in which all students but the last look alike, from a rough guess of its entries."""
    guess = torch.eye(size, dtype=torch.float64) - 0.03
    guess[:, -1], guess[-1, :], guess[-1, -1] = 0.23, 0.18, -0.66
    for _ in range(3000):
        guess = guess - 0.1 * reference.loss_gradient(guess)
    return search.refine(student_teacher(size, size), guess.view(1, -1))


@pytest.mark.parametrize("size", [6, 7, 8])
def test_spurious_minima_are_certified_known_and_as_published(size: int) -> None:
    landscape, theta = student_teacher(size, size), spurious(size)
    loss = float(landscape.objective(theta))
    lowest = float(torch.linalg.eigvalsh(landscape.hessian(theta))[0, 0])
    assert (loss, lowest) == pytest.approx(reference.SPURIOUS[size][0], abs=1e-12)
    if size in PUBLISHED:
        assert abs(loss - PUBLISHED[size][0]) < 5e-7 and abs(lowest - PUBLISHED[size][1]) < 5e-5
    result = classified(landscape, theta)
    assert result.kind == ["minimum"] and result.certificates.certified == [True]
    assert "safran-shamir" in result.certificates.certificate[0]
    assert landscape.known_class is not None
    known = landscape.known_class(theta[0])
    assert known is not None and (known.name, known.kind) == ("spurious minimum 0", "minimum")


def test_gradient_descent_ends_in_spurious_minima_as_often_as_published() -> None:
    """Safran & Shamir 2018 report 12.6 % for 8 students and 8 teachers; here 80 runs, 99.9 % within 2 … 24."""
    landscape = student_teacher(8, 8)
    students = starts(landscape, 80).view(80, 8, 8)
    for _ in range(600):
        students = students - 0.1 * reference.loss_gradient(students)
    outcome, result = found(landscape, TrustRegionNewton(TOLERANCE, initial_radius=0.02), students.view(80, 64))
    assert set(result.kind) == {"minimum"} and all(result.certificates.certified)
    loss = landscape.objective(outcome.theta)
    bad = loss >= 1e-3
    assert 2 <= int(bad.sum()) <= 24
    torch.testing.assert_close(loss[bad], torch.full_like(loss[bad], reference.SPURIOUS[8][0][0]), rtol=0, atol=1e-12)
    assert float(loss[~bad].abs().max()) < 1e-14


def test_split_global_minimum_is_degenerate() -> None:
    """Two parallel students in the place of one: moving one by u and the other by −u is free to second order."""
    landscape = student_teacher(3, 2)
    theta = torch.tensor([[0.5, 0.0, 0.5, 0.0, 0.0, 1.0]], dtype=torch.float64)
    assert float(landscape.objective(theta).abs()) < 1e-15
    values = torch.linalg.eigvalsh(landscape.hessian(theta))[0]
    assert int((values.abs() < 1e-14).sum()) == 2 and float(values[2]) > 0.05
    assert landscape.known_class is not None
    known = landscape.known_class(theta[0])
    assert known is not None and known.kind == classified(landscape, theta).kind[0] == "degenerate_minimum"
    assert student_teacher(2, 3).global_minimum is None


def test_sizes_have_to_be_positive() -> None:
    with pytest.raises(LandscapeError, match="students, teachers: found 0 and 3"):
        student_teacher(0, 3)


def test_superfluous_students_vanish_and_nothing_is_claimed_there() -> None:
    """The Hessian jumps at w = 0, so the bound is infinite and no sign certain."""
    landscape = student_teacher(3, 2)
    outcome, result = found(landscape, TrustRegionNewton(TOLERANCE), starts(landscape, 10))
    vanished = outcome.theta.view(10, 3, 2).norm(dim=2).amin(1) < 1e-9
    assert int(vanished.sum()) >= 5
    assert landscape.known_class is not None
    for row in torch.nonzero(vanished).flatten().tolist():
        known = landscape.known_class(outcome.theta[row])
        assert known is not None and known.kind == result.kind[row] == "undetermined"
        assert not result.certificates.certified[row]


# --- saddles -----------------------------------------------------------------------------------------------------
def test_saddles_have_the_index_of_their_exact_hessian() -> None:
    """The Hessian from 60-digit differences of the loss has as many negative eigenvalues at every saddle that
    eigenvector following finds from 30 starts."""
    landscape = student_teacher(3, 3)
    begun = starts(landscape, 30)
    finder = EigenvectorFollowing(TOLERANCE, 1 + torch.arange(30) % 3)
    outcome, result = found(landscape, finder, begun)
    rows = [row for row, kind in enumerate(result.kind) if kind == "saddle"]
    assert len(rows) >= 20
    for row in rows:
        exact = exact_hessian(outcome.theta[row].view(3, 3))
        values = np.linalg.eigvalsh(as_array(exact))
        assert int((values < 0).sum()) == int(result.signs.index[row])
        assert float(np.abs(values).min()) > 1e-6
    assert {int(result.signs.index[row]) for row in rows} >= {1, 2}
    assert all(result.certificates.certified[row] for row in rows)
