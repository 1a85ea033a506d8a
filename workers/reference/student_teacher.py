"""A two-layer ReLU student of an orthonormal teacher: population loss over Gaussian inputs, in closed form.

Student N(x) = Σᵢ max(0, wᵢ·x), teacher Σⱼ max(0, vⱼ·x) with vⱼ the standard basis of Rᵏ, x ~ N(0, I) (Safran & Shamir
2018). With f(w, v) = E[max(0, w·x) max(0, v·x)] = ‖w‖‖v‖(sin φ + (π−φ) cos φ)/2π, φ their angle (Cho & Saul 2009),

    F(W) = ½E(N − teacher)² = ½Σᵢⱼ f(wᵢ, wⱼ) − Σᵢⱼ f(wᵢ, vⱼ) + ½Σᵢⱼ f(vᵢ, vⱼ).

Derivatives (their section 4.1), with ŵ, v̂ unit vectors and n = (v̂ − cos φ ŵ)/sin φ, m = (ŵ − cos φ v̂)/sin φ:

    ∇_w f = (‖v‖ sin φ ŵ + (π−φ) v)/2π,     ∂²f/∂w² = ‖v‖ sin φ (I − ŵŵᵀ + nnᵀ)/(2π‖w‖),
    ∂²f/∂w∂v = ((π−φ) I + sin φ (ŵv̂ᵀ + nmᵀ))/2π.

All are continuous where w, v ≠ 0, at φ = 0 and π too, though angles are not differentiable there. So the gradient is
given in closed form, and differentiated by ``torch.func`` only once more; sin φ·nnᵀ is written p pᵀ/‖p‖, p = sin φ·n.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from landsweep.workers import streams
from landsweep.workers.errors import LandscapeError
from landsweep.workers.landscape import KnownClass, Landscape, Scalar

PROBES = 64  # inputs at which the student's outputs are recorded
SAME_PLACE = 1e-6  # a student this near a teacher counts as that teacher
SAME_LOSS, SAME_CURVATURE = 1e-9, 1e-6  # a stationary point this near a known loss and λ_min is taken for it
THIRD = 1.5 * math.sqrt(3.0)  # of ``third_derivative_bound``


def _length(vectors: Tensor) -> Tensor:
    """Norms along the last axis, with derivative 0 where they vanish. (…, d) → (…)."""
    square = (vectors * vectors).sum(-1)
    positive = square > 0
    return torch.where(positive, torch.where(positive, square, 1.0).sqrt(), 0.0)


def _others(students: Tensor) -> tuple[Tensor, Tensor]:
    """The students and the teachers below them (…, n+k, k), and their signs in F, +1 and −1 (n+k,)."""
    n, k = students.shape[-2:]
    teachers = torch.eye(k, dtype=students.dtype, device=students.device).expand(*students.shape[:-2], k, k)
    signs = torch.cat([students.new_ones(n), -students.new_ones(k)])
    return torch.cat([students, teachers], -2), signs


def _pairs(students: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ŵ (…, n, 1, k), p = v̂ − cos φ ŵ, sin φ and φ of every pair, v among ``others`` (…, m, k).

    φ = atan2(‖p‖, ŵ·v̂) keeps its accuracy near 0 and π, where arccos loses half of the digits.
    """
    first = (students / _length(students).unsqueeze(-1)).unsqueeze(-2)
    second = (others / _length(others).unsqueeze(-1)).unsqueeze(-3)
    cosine = (first * second).sum(-1)
    perpendicular = second - cosine.unsqueeze(-1) * first
    sine = _length(perpendicular)
    return first, perpendicular, sine, torch.atan2(sine, cosine)


def _gradients(students: Tensor, others: Tensor) -> Tensor:
    """∇_w f(wᵢ, vⱼ) for every pair. (…, n, k), (…, m, k) → (…, n, m, k)."""
    unit, _, sine, angle = _pairs(students, others)
    along = (_length(others).unsqueeze(-2) * sine).unsqueeze(-1) * unit
    return (along + (math.pi - angle).unsqueeze(-1) * others.unsqueeze(-3)) / (2 * math.pi)


def loss_value(students: Tensor) -> Tensor:
    """F(W), by f(w, v) = w·∇_w f(w, v). (…, n, k) → (…)."""
    n, k = students.shape[-2:]
    others, signs = _others(students)
    values = (_gradients(students, others) * students.unsqueeze(-2)).sum(-1)
    weights = torch.cat([0.5 * signs[:n], signs[n:]])
    teacher = k / 4 + k * (k - 1) / (4 * math.pi)  # f(v, v) = ½ and f(v, v′) = 1/2π for v ⊥ v′
    return (values * weights).sum((-2, -1)) + teacher


def loss_gradient(students: Tensor) -> Tensor:
    """∇F, (…, n, k): Σⱼ ∇_w f(wᵢ, wⱼ) − Σⱼ ∇_w f(wᵢ, vⱼ); the pair j = i gives wᵢ/2."""
    others, signs = _others(students)
    return (_gradients(students, others) * signs.unsqueeze(-1)).sum(-2)


def loss_hessian(students: Tensor) -> Tensor:
    """∇²F, (B, n, k) → (B, nk, nk): ∂²f/∂w² summed over the pairs on the diagonal, ∂²f/∂w∂v off it."""
    rows, n, k = students.shape
    others, signs = _others(students)
    unit, perpendicular, sine, angle = _pairs(students, others)
    identity = torch.eye(k, dtype=students.dtype, device=students.device)
    tiny = torch.finfo(students.dtype).tiny
    scaled = perpendicular / sine.clamp_min(tiny).sqrt().unsqueeze(-1)  # √(sin φ)·n, so that its square is sin φ nnᵀ
    size = signs * _length(others).unsqueeze(1) / _length(students).unsqueeze(2)
    itself = torch.eye(n, n + k, dtype=torch.bool, device=students.device)
    size = torch.where(itself, 0.0, size)  # the pair of a student with itself gives ½I
    first = unit.squeeze(2)
    bends = (scaled * size.unsqueeze(-1)).unsqueeze(-1) * scaled.unsqueeze(-2)
    flat = (size * sine).sum(2)[..., None, None] * (identity - first.unsqueeze(-1) * first.unsqueeze(-2))
    own = 0.5 * identity + (bends.sum(2) + flat) / (2 * math.pi)
    across = scaled[:, :, :n].unsqueeze(-1) * scaled[:, :, :n].transpose(1, 2).unsqueeze(-2)  # sin φ nmᵀ
    outer = sine[:, :, :n, None, None] * first[:, :, None, :, None] * first[:, None, :, None, :]
    turned = (math.pi - angle[:, :, :n])[..., None, None] * identity
    blocks = (turned + outer + across) / (2 * math.pi)
    diagonal = itself[:, :n, None, None]
    blocks = torch.where(diagonal, own.unsqueeze(2), blocks)
    return blocks.transpose(2, 3).reshape(rows, n * k, n * k)


class _Loss(torch.autograd.Function):
    """F with its gradient in closed form, for reverse and for forward mode."""

    generate_vmap_rule = True

    @staticmethod
    def forward(students: Tensor) -> Tensor:
        return loss_value(students)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        return cotangent * loss_gradient(*ctx.saved_tensors)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return (loss_gradient(*ctx.saved_tensors) * tangent).sum()


def third_derivative_bound(students: Tensor, radius: Tensor) -> Tensor:
    """K with ‖∇²F(A) − ∇²F(B)‖₂ ≤ K‖A − B‖ for A, B within ``radius`` () of ``students`` (n, k); infinite where a
    student can vanish. ().

    For u = αŵ + βn + (rest of length γ), differentiating ∂²f/∂w² once more gives
      D³_w f[u³] = −‖v‖/(2π‖w‖²)·(3α sin φ (2β² + γ²) + β cos φ (2β² + 3γ²)),   at most 3√3/2·‖v‖/(2π‖w‖²)
    (over φ it is √(9α²(2β² + γ²)² + β²(2β² + 3γ²)²), greatest at γ = 0, β² = ¾), and
      D_v D²_w f[u, u, u′] = ((u′·n)(2β² + γ²) + 2β γ⃗·γ⃗′)/(2π‖w‖),   at most 1/(π‖w‖),
    for γ⃗, γ⃗′ the parts of u, u′ orthogonal to w and v. Summed over the pairs, with xᵢ = ‖uᵢ‖,
      |D³F[u³]| ≤ Σᵢ aᵢxᵢ³ + 3Σ_{i≠j} bᵢxᵢ²xⱼ,  aᵢ = 3√3/2·(Σ_{j≠i}‖wⱼ‖ + k)/(2π‖wᵢ‖²),  bᵢ = 1/(π‖wᵢ‖),
    whose greatest value over the unit sphere is at most the spectral norm of the n × n² flattening of the tensor with
    entries Tᵢᵢᵢ = aᵢ, Tᵢᵢⱼ = Tᵢⱼᵢ = Tⱼᵢᵢ = bᵢ. D³F jumps at φ = 0 and π, across which ∇²F is continuous, so the bound
    on its size bounds the Hessian's rate of change all the same. It is some 6 to 10 times ‖D³F‖ at Xavier starts and at
    the minima, as teachers' and students' shares of aᵢ, which nearly cancel there, are added.
    """
    n, k = students.shape
    lengths = _length(students)
    least = lengths - radius
    rest = lengths.sum() - lengths + math.sqrt(n - 1) * radius
    a = THIRD * (rest + k) / (2 * math.pi * least**2)
    b = 1 / (math.pi * least)
    square = b**2
    mixed = a * b - square
    gram = mixed.unsqueeze(0) + mixed.unsqueeze(1) + 2 * b.unsqueeze(0) * b.unsqueeze(1) + square.sum()
    own = a**2 + 2 * (n - 1) * square + square.sum() - square
    gram = torch.where(torch.eye(n, dtype=torch.bool, device=a.device), own.unsqueeze(1), gram)
    usable = (least > 0).all()
    safe = torch.where(usable, gram, torch.eye(n, dtype=a.dtype, device=a.device))
    return torch.where(usable, torch.linalg.eigvalsh(safe)[-1].sqrt(), torch.inf)


#: Loss and λ_min of spurious minima by size, students = teachers: Safran & Shamir's (2018) for 6 and 8, to more digits
SPURIOUS: dict[int, tuple[tuple[float, float], ...]] = {
    6: ((0.02508058100246302, 0.004700354703587782),),
    7: ((0.02320271491356607, 0.014059013182293925),),
    8: ((0.02150803717152261, 0.021346589191533046),),
    10: ((0.018702194585605625, 0.03196402764646265), (0.03532688031892839, 0.01599207821499646)),
}


def student_teacher(students: int = 6, teachers: int = 6) -> Landscape:
    """F over the ``students`` × ``teachers`` weights, row by row; starts N(0, 1/teachers) (Xavier), as in the paper.

    No continuous symmetry; permutations of the students and of the coordinates leave F unchanged. With as many students
    as teachers the global minima are the k! permuted teachers, nondegenerate. With more, they form manifolds: where a
    student is split in two parallel ones, moving one by u and the other by −u costs nothing to second order. Searches
    end where a student vanishes, too; F is not twice differentiable there, so no class can be told.

    Raises LandscapeError unless both numbers are positive.
    """
    n, k = students, teachers
    if min(n, k) < 1:
        raise LandscapeError(f"students, teachers: found {n} and {k}; a network has at least one unit")
    probes = streams.normal(streams.keys("student_teacher", range(PROBES), "probes"), 0, k)

    def outputs(theta: Tensor) -> Tensor:
        return (theta.view(n, 1, k) * probes.to(theta)).sum(2).clamp_min(0.0).sum(0)

    def init(generator: torch.Generator) -> Tensor:
        return torch.randn(n * k, generator=generator, dtype=torch.float64) / math.sqrt(k)

    return Landscape(
        name="student_teacher",
        dim=n * k,
        loss=_loss(n, k),
        train_loss=_loss(n, k),
        init=init,
        outputs=outputs,
        closed_hessian=lambda thetas: loss_hessian(thetas.view(-1, n, k)),
        hessian_bytes=8 * 8 * (n * k) ** 2 + 8 * 8 * n * (n + k) * k * k,
        hessian_lipschitz=lambda theta, radius: third_derivative_bound(theta.view(n, k), radius),
        global_minimum=0.0 if n >= k else None,
        known_class=_known_class(n, k),
    )


def _loss(n: int, k: int) -> Scalar:
    def loss(theta: Tensor) -> Tensor:
        return _Loss.apply(theta.view(n, k))  # type: ignore[no-any-return, no-untyped-call]

    return loss


def _known_class(n: int, k: int) -> Callable[[Tensor], KnownClass | None]:
    """By its distance to the teachers, or by its loss."""

    def known_class(theta: Tensor) -> KnownClass | None:
        students = theta.detach().view(n, k)
        distances = _length(students.unsqueeze(1) - torch.eye(k, dtype=theta.dtype, device=theta.device))
        if n == k and bool((distances.amin(0) < SAME_PLACE).all()):
            return KnownClass("global minimum", "minimum", 0, 0, 0.0)
        value = float(loss_value(students))
        if n > k and value < SAME_LOSS:
            if bool((_length(students) < SAME_PLACE).any()):  # ∇²F jumps where a student vanishes
                return KnownClass("global minimum with a vanished student", "undetermined", None, None, 0.0)
            return KnownClass("split global minimum", "degenerate_minimum", 0, None, 0.0)
        lowest = float(torch.linalg.eigvalsh(loss_hessian(students.unsqueeze(0)))[0, 0])
        for number, (loss, curvature) in enumerate(SPURIOUS.get(k, ()) if n == k else ()):
            if abs(value - loss) < SAME_LOSS and abs(lowest - curvature) < SAME_CURVATURE:
                return KnownClass(f"spurious minimum {number}", "minimum", 0, 0, loss)
        return None

    return known_class
