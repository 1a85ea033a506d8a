"""What a candidate is: critical or not, the signs of its curvature with error bars, its kind (docs/points.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers import search
from landsweep.workers.certificate import Certificates, certify, lipschitz, reach
from landsweep.workers.curvature import Curvature
from landsweep.workers.descent import falls
from landsweep.workers.landscape import Field, Landscape
from landsweep.workers.quadratic import LocalModel, flatness, in_eigenbasis

ZERO = 1e-7  # z = ZERO·max(‖H(θ)‖₂, ‖H‖₂ at the trial's start)
SIGN = 1e-3  # share of z beyond which a sign counts where δ is a bound, K being exact
FLAT_RESIDUAL, FLAT_CURVATURE = 0.9, 5e-4  # Frye et al. 2021


@dataclass(frozen=True)
class Signs:
    """How many eigenvalues are certainly negative, positive, zero, or cannot be told. Each (P,) int64."""

    index: Tensor
    n_positive: Tensor
    n_zero: Tensor
    n_undetermined: Tensor


@dataclass(frozen=True)
class Classified:
    """One entry a point."""

    kind: list[str]
    reason: list[str | None]
    critical: Tensor  # (P,) bool
    signs: Signs
    curvature: Curvature
    zero_tolerance: Tensor  # (P,) z
    error: Tensor  # (P,) δ
    certificates: Certificates


def signs(eigenvalues: Tensor, error: Tensor, zero: Tensor, exact: bool = False) -> Signs:
    """Positive if λ−δ > z, negative if λ+δ < −z, zero if |λ|+δ ≤ z, else undetermined.

    Where δ is a bound (``exact``), signs count beyond z/1000: along the orbit of a symmetry that is no isometry the
    smallest eigenvalues may fall below 1e-7·‖H‖ with their signs, which are the same all over the orbit (Sylvester),
    well resolved.

    >>> s = signs(torch.tensor([[-1.0, 0.0, 0.09, 2.0]]), torch.tensor([0.02]), torch.tensor([0.1]))
    >>> [int(x) for x in (s.index, s.n_positive, s.n_zero, s.n_undetermined)]
    [1, 1, 1, 1]
    """
    d, z = error.unsqueeze(1), zero.unsqueeze(1)
    floor = SIGN * z if exact else z
    negative, positive = eigenvalues + d < -floor, eigenvalues - d > floor
    zeros = is_zero(eigenvalues, error, zero, exact)
    undetermined = ~(negative | positive | zeros)
    return Signs(negative.sum(1), positive.sum(1), zeros.sum(1), undetermined.sum(1))


def is_zero(eigenvalues: Tensor, error: Tensor, zero: Tensor, exact: bool = False) -> Tensor:
    """Which eigenvalues count as zero. (P, n) bool."""
    d, z = error.unsqueeze(1), zero.unsqueeze(1)
    small = eigenvalues.abs() + d <= z
    return small & (eigenvalues.abs() - d <= SIGN * z) if exact else small


def explained(model: LocalModel, zeros: Tensor) -> Tensor:
    """Whether the space of the eigenvalues ``zeros`` (P, n) equals the span of the symmetries' tangents. (P,) bool."""
    same_rank = zeros.sum(1) == model.n_symmetry
    if model.span.shape[2] == 0:
        return same_rank
    inside = ((model.eigenvectors * zeros.unsqueeze(1)).mT.unsqueeze(3) * model.span.unsqueeze(1)).sum(2)
    missing = (model.span**2).sum((1, 2)) - (inside**2).sum((1, 2))  # 0 when every tangent lies in the zero space
    return same_rank & (missing < 1e-6)


def kind_of(index: int, positive: int, undetermined: int, zeros_explained: bool, descent: bool, ascent: bool) -> str:
    """The kind of a critical point; ``descent`` and ``ascent`` are what was found along unexplained zeros."""
    if undetermined:
        return "undetermined"
    if zeros_explained:
        if index and positive:
            return "saddle"
        return "maximum" if index else "minimum"
    below, above = bool(index) or descent, bool(positive) or ascent
    if below and above:
        return "degenerate_saddle"
    return "undetermined" if below else "degenerate_minimum"


def classify(
    landscape: Landscape,
    theta: Tensor,
    outcome: search.Outcome,
    scale: Tensor,
    keys: Tensor,
    tolerance: float,
    fields: tuple[Field, ...] = (),
) -> Classified:
    """Classify every row of ``theta`` (P, n).

    ``outcome`` tells how the search ended there, ``scale`` (P,) is ‖H‖₂ at the trial's start, ``keys`` (P,) drive the
    sampled directions.
    """
    model = LocalModel.at(landscape, theta, fields)
    gradient_norm = model.gradient.norm(dim=1)
    near = model.newton_length <= search.STEP_TOLERANCE * (1 + theta.norm(dim=1))
    critical = (gradient_norm <= tolerance) & near & model.finite
    zero = ZERO * torch.maximum(model.norm, scale)
    ball = reach(theta, model.newton_length)
    constant = lipschitz(landscape, theta, ball, model, keys)
    rounding = theta.shape[1] * torch.finfo(theta.dtype).eps * model.norm + model.asymmetry
    error = rounding + 2 * constant * torch.nan_to_num(model.newton_length, posinf=0.0)
    exact = landscape.hessian_lipschitz is not None
    counted = signs(model.eigenvalues, error, zero, exact)
    zeros = is_zero(model.eigenvalues, error, zero, exact)
    accounted = explained(model, zeros)
    _, flat = flatness(model.inside, in_eigenbasis(model.modes, model.gradient), zero)
    kinds: list[str] = []
    reasons: list[str | None] = []
    for row in range(len(theta)):
        if bool(critical[row]):
            kind, reason = _critical_kind(landscape, theta[row], row, model, counted, accounted, zero, zeros, keys)
        else:
            kind, reason = other_kind(
                landscape, theta[row], bool(model.finite[row]), search.STATUS[int(outcome.status[row])],
                float(gradient_norm[row]), float(model.newton_length[row]), float(outcome.flatness[row]),
                float(flat[row]), tolerance,
            )  # fmt: skip
        kinds.append(kind)
        reasons.append(reason)
    certificates = certify(landscape, theta, model, constant, ball, fields)
    return Classified(kinds, reasons, critical, counted, Curvature.dense(model), zero, error, certificates)


def _critical_kind(
    landscape: Landscape, theta: Tensor, row: int, model: LocalModel, counted: Signs, accounted: Tensor,
    zero: Tensor, zeros: Tensor, keys: Tensor,
) -> tuple[str, str | None]:  # fmt: skip
    index, positive = int(counted.index[row]), int(counted.n_positive[row])
    undetermined, is_explained = int(counted.n_undetermined[row]), bool(accounted[row])
    descent = ascent = False
    if not undetermined and not is_explained and not (index and positive):
        space = model.eigenvectors[row][:, zeros[row]]
        norm, stream = float(torch.maximum(model.norm[row], zero[row] / ZERO)), int(keys[row])
        descent = index == 0 and falls(landscape, theta, space, norm, stream)
        ascent = positive == 0 and falls(landscape, theta, space, norm, stream, sign=-1.0)
    kind = kind_of(index, positive, undetermined, is_explained, descent, ascent)
    told = f"{int(counted.n_zero[row])} zero eigenvalues, {int(model.n_symmetry[row])} explained by symmetries"
    if kind == "undetermined":
        return kind, f"{undetermined} eigenvalues within their error of the zero tolerance" if undetermined else told
    if kind == "degenerate_minimum":
        return kind, f"{told}; no descent found in {64} directions (tested, not proved)"
    return kind, told if kind == "degenerate_saddle" else None


def other_kind(
    landscape: Landscape, theta: Tensor, finite: bool, status: str, norm: float, length: float, residual: float,
    curvature: float, tolerance: float,
) -> tuple[str, str]:  # fmt: skip
    """The kind of a point that is not critical, with what was found.

    ``residual`` is the run's maximum of Frye's r, ``curvature`` ‖H(Hp+g)‖/(‖H‖‖Hp+g‖) at the end; ``length``, the
    Newton step's, and ``curvature`` are NaN where the answer does not need them.
    """
    if not finite or status == "non_finite":
        return "diverged", "the objective, gradient or Hessian is not finite"
    newton = "" if math.isnan(length) else f", Newton step {length:.1e}"
    found = f"search ended by {status}: gradient norm {norm:.1e}{newton}"
    if norm > tolerance and status == "stagnated" and residual > FLAT_RESIDUAL and curvature < FLAT_CURVATURE:
        return "gradient_flat", f"{found}; residual {residual:.2f} of the Newton equation, in the Hessian's kernel"
    if landscape.separable is not None and bool(landscape.separable(theta)):
        return "not_converged", f"cross-entropy without weight decay on separated data has no finite minimum; {found}"
    if norm <= tolerance:
        return "not_converged", f"a plateau: the gradient is small, but so is the curvature; {found}"
    if landscape.kink_distance is not None:
        found += f"; smallest pre-activation {float(landscape.kink_distance(theta)):.1e}: the model has kinks"
    return "not_converged", found
