"""What a candidate is, from products with the Hessian alone: bounds instead of eigenvalues (docs/points.md)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from landsweep.workers import search, streams
from landsweep.workers.certificate import SAMPLE_DISTANCE, Certificates, exact_lipschitz, reach
from landsweep.workers.classify import FLAT_RESIDUAL, ZERO, Classified, Signs, kind_of, other_kind
from landsweep.workers.curvature import Curvature, Record, joined
from landsweep.workers.krylov import minres
from landsweep.workers.krylov.inertia import Inertia, inertia
from landsweep.workers.krylov.lanczos import BLOCK, lanczos, memory_bytes
from landsweep.workers.krylov.trace import trace
from landsweep.workers.landscape import CHUNK_BYTES, Landscape
from landsweep.workers.matrix_free import LENGTH_TOLERANCE
from landsweep.workers.search import SINGULAR
from landsweep.workers.symmetry import basis

EXTREMES = 4  # eigenvalues wanted at each end
TOLERANCE = 1e-8  # of their stated errors, relative to ‖H‖
PRODUCTS = 90  # for the trace
NORM_STEPS = 6  # blocks that estimate ‖H‖₂


def spectral_norm(landscape: Landscape, thetas: Tensor, most: int = NORM_STEPS, tolerance: float = 0.0) -> Tensor:
    """‖H‖₂ at each row by at most so many Lanczos steps, a lower bound: within about 1 % by the few that are taken
    unless more are asked for, within ``tolerance`` where these suffice. (B,)."""
    keys = streams.keys("classify_krylov", [0], "norm", thetas.device).expand(len(thetas)).contiguous()
    steps = min(most, thetas.shape[1])

    def norm(theta: Tensor, key: Tensor) -> Tensor:
        return lanczos(landscape.products(theta), theta.shape[1], key, steps, tolerance=tolerance).norm

    return _in_chunks(norm, steps, thetas, keys)


def newton_steps(landscape: Landscape, theta: Tensor) -> tuple[Tensor, Tensor]:
    """−H⁺g by MINRES off the symmetries' tangents, and its length, infinite where not finite. (B, n), (B,)."""
    span = basis(landscape.symmetries, theta)[0]
    return minres.newton_step(landscape, theta, landscape.gradient(theta), span, LENGTH_TOLERANCE)


def classify(
    landscape: Landscape, theta: Tensor, outcome: search.Outcome, scale: Tensor, keys: Tensor, tolerance: float,
    steps: int, spectrum: bool = True,
) -> Classified:  # fmt: skip
    """Classify every row of ``theta`` (P, n) with at most ``steps`` block-Lanczos steps a run.

    Without ``spectrum``, that of points with ‖g‖ > ``tolerance`` is left out: their kind does not need it.

    Signs count where bounds decide them: an eigenvalue that no bound separates from the zero tolerance is undetermined,
    and so is every zero that is no tangent of a declared symmetry. The bounds hold but for a probability of 1e-8.
    """
    rows = _rows_at_once(theta.shape[1], min(steps, theta.shape[1]))
    parts = []
    for chunk in torch.split(torch.arange(len(theta), device=theta.device), rows):
        found = _Found(landscape, theta[chunk], scale[chunk], keys[chunk], tolerance, steps, spectrum)
        ended = search.Outcome(theta[chunk], outcome.status[chunk], outcome.iterations[chunk], outcome.flatness[chunk])
        parts.append(found.classified(ended))
    return joined(parts)


@dataclass(frozen=True)
class _Ends:
    """The ends of the spectrum and its trace; NaN where not measured or not finite."""

    norm: Tensor  # (P,) ‖H‖₂
    values: Tensor  # (P, k) the lowest and the highest eigenvalues
    error: Tensor  # (P,) the stated error of the outermost
    lowest: Tensor  # (P, n) unit eigenvector of the smallest
    trace: Tensor  # (P,)
    trace_error: Tensor  # (P,)

    @staticmethod
    def none(theta: Tensor) -> _Ends:
        """Of the rows of ``theta`` (P, n)."""
        vectors = torch.full_like(theta, torch.nan)
        each = vectors[:, 0]
        return _Ends(each, vectors[:, : 2 * _wanted(theta.shape[1])], each, vectors, each, each)


@dataclass(frozen=True)
class _Decided:
    """What only a critical point needs; 0 or NaN in other rows. Each (P,)."""

    signs: Signs
    explained: Tensor  # bool: the zeros are those of the symmetries
    remaining: Tensor  # all eigenvalues but those counted as negative or zero exceed this
    lipschitz: Tensor  # K
    displaced: Tensor  # 2Kρ, how far eigenvalues may be from those at the true point

    @staticmethod
    def none(theta: Tensor) -> _Decided:
        """Of the rows of ``theta`` (P, n)."""
        count = torch.zeros(len(theta), dtype=torch.int64, device=theta.device)
        unknown = torch.full_like(theta[:, 0], torch.nan)
        return _Decided(Signs(count, count, count, count), count > 0, unknown, unknown, unknown)


@dataclass(frozen=True)
class _Found:
    """A chunk of candidates."""

    landscape: Landscape
    theta: Tensor
    scale: Tensor
    keys: Tensor
    tolerance: float
    steps: int
    spectrum: bool

    @cached_property
    def apply(self) -> Callable[[Tensor], Tensor]:
        """Products with the Hessians."""
        return self.landscape.products(self.theta)

    def take(self, rows: Tensor) -> _Found:
        """Some of the candidates."""
        parts = {name: getattr(self, name)[rows] for name in ("theta", "scale", "keys")}
        return dataclasses.replace(self, **parts)

    def classified(self, outcome: search.Outcome) -> Classified:
        """The ends of the spectrum where ``spectrum`` asks for them or ‖g‖ is small enough for a critical point, ρ in
        the latter, K and signs in critical rows: these take many more products."""
        theta = self.theta
        span, rank = basis(self.landscape.symmetries, theta)
        gradient = self.landscape.gradient(theta)
        gradient_norm, finite = gradient.norm(dim=1), torch.isfinite(gradient).all(1)
        small = finite & (gradient_norm <= self.tolerance)
        wanted = small | (finite & self.spectrum)
        ends = self._placed(wanted, _Found._ends) if bool(wanted.any()) else _Ends.none(theta)
        finite = finite & (torch.isfinite(ends.norm) | ~wanted)
        step, length = self._newton(gradient, span, small & finite)
        critical = finite & (length <= search.STEP_TOLERANCE * (1 + theta.norm(dim=1)))
        zero = ZERO * torch.maximum(ends.norm, self.scale)
        decided = _Decided.none(theta)
        if bool(critical.any()):
            decided = self._placed(critical, _Found._decided, step, length, zero, ends.norm, span, rank)
        kinds, reasons = self._kinds(outcome, critical, finite, gradient, length, span, decided)
        curvature = Curvature(
            gradient_norm, length, finite, rank, ends.norm, torch.where(finite.unsqueeze(1), ends.values, torch.nan),
            ends.lowest, ends.trace, ends.trace_error, torch.full_like(length, torch.nan),
        )  # fmt: skip
        error = ends.error + torch.nan_to_num(decided.displaced)
        certificates = _uncertified(decided.lipschitz)
        return Classified(kinds, reasons, critical, decided.signs, curvature, zero, error, certificates)

    def _placed(self, rows: Tensor, measure: Callable[..., Record], *known: Tensor) -> Record:
        """What ``measure`` finds of the ``rows`` (P,) bool and what is ``known`` of them, in their places."""
        return _spread(measure(self.take(rows), *(tensor[rows] for tensor in known)), rows)

    def _ends(self) -> _Ends:
        dim, ends = self.theta.shape[1], _wanted(self.theta.shape[1])
        estimate = trace(self.apply, dim, self.keys, PRODUCTS)  # before there is a basis to hold
        ritz = lanczos(
            self.apply, dim, self.keys, self.steps, lowest=EXTREMES, highest=EXTREMES, tolerance=TOLERANCE,
        )  # fmt: skip
        values = torch.cat([ritz.values[:, :ends], _last(ritz.values, ritz.count, ends)], 1)
        error = torch.maximum(ritz.lowest_error, ritz.highest_error)
        return _Ends(ritz.norm, values, error, ritz.vectors(1, 0).squeeze(2), estimate.value, estimate.error)

    def _newton(self, gradient: Tensor, span: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """−H⁺g and ρ in ``rows`` (P,) bool, NaN elsewhere. (P, n), (P,)."""
        step, length = torch.full_like(gradient, torch.nan), torch.full_like(gradient[:, 0], torch.nan)
        if bool(rows.any()):
            step[rows], length[rows] = minres.newton_step(
                self.landscape, self.theta[rows], gradient[rows], span[rows], LENGTH_TOLERANCE
            )
        return step, length

    def _decided(
        self, step: Tensor, length: Tensor, zero: Tensor, norm: Tensor, span: Tensor, rank: Tensor
    ) -> _Decided:
        dim = self.theta.shape[1]
        constant = self._lipschitz(step, length)
        displaced = 2 * constant * torch.nan_to_num(length, posinf=0.0)
        rounding = dim * torch.finfo(zero.dtype).eps * norm
        counted = inertia(self.apply, dim, zero + displaced + rounding, self.keys, self.steps, deflation=span)
        return _Decided(*_signs(counted, rank), counted.remaining, constant, displaced)

    def _lipschitz(self, step: Tensor, length: Tensor) -> Tensor:
        """K, exact where it is known, else the largest sampled ‖(H(θ+d) − H(θ))v‖/‖d‖ over d along the Newton step and
        random unit v (a lower bound of the true one). (P,)."""
        theta = self.theta
        known = exact_lipschitz(self.landscape, theta, reach(theta, length))
        if known is not None:
            return known
        dim = theta.shape[1]
        probes = streams.normal(self.keys, 0, BLOCK * dim).reshape(-1, dim, BLOCK)
        probes = probes / probes.norm(dim=1, keepdim=True)
        direction = torch.where(step.norm(dim=1, keepdim=True) > 0, step, probes[:, :, 0])
        distance = SAMPLE_DISTANCE * (1 + theta.norm(dim=1))
        there = theta + (distance / direction.norm(dim=1)).unsqueeze(1) * direction
        along = torch.cat([probes, (direction / direction.norm(dim=1, keepdim=True)).unsqueeze(2)], 2)
        change = self.landscape.hvp(there, along) - self.landscape.hvp(theta, along)
        worst: Tensor = change.norm(dim=1).amax(1) / distance
        return worst

    def _kinds(
        self, outcome: search.Outcome, critical: Tensor, finite: Tensor, gradient: Tensor, length: Tensor,
        span: Tensor, decided: _Decided,
    ) -> tuple[list[str], list[str | None]]:  # fmt: skip
        kinds: list[str] = []
        reasons: list[str | None] = []
        flat = self._flatness(outcome, finite & ~critical, gradient, span)
        signs = decided.signs
        for row in range(len(self.theta)):
            if bool(critical[row]):
                index, positive, rest = (int(n[row]) for n in (signs.index, signs.n_positive, signs.n_undetermined))
                kinds.append(kind_of(index, positive, rest, bool(decided.explained[row]), False, False))
                bound = f"all others above {float(decided.remaining[row]):.1e} but for a probability of 1e-8"
                reasons.append(f"{rest} eigenvalues that no bound separates from zero; {bound}" if rest else None)
                continue
            kind, reason = other_kind(
                self.landscape, self.theta[row], bool(finite[row]), search.STATUS[int(outcome.status[row])],
                float(gradient[row].norm()), float(length[row]), float(outcome.flatness[row]), float(flat[row]),
                self.tolerance,
            )  # fmt: skip
            kinds.append(kind)
            reasons.append(reason)
        return kinds, reasons

    def _flatness(self, outcome: search.Outcome, rows: Tensor, gradient: Tensor, span: Tensor) -> Tensor:
        """‖Ar‖/(‖A‖‖r‖) of the residual r = Hp + g at the end, eigenvalues below 1e-7·‖H‖ counting as zero. (P,).

        In those of ``rows`` (P,) bool where the search stagnated with Frye's r as gradient_flat takes, else NaN.
        """
        rows = rows & (outcome.status == search.STAGNATED) & (outcome.flatness > FLAT_RESIDUAL)
        flat = torch.full_like(outcome.flatness, torch.nan)
        if bool(rows.any()):
            apply = self.take(rows).apply
            solution = minres.minres(apply, gradient[rows], 1e-3, SINGULAR, 500, span[rows])
            size = solution.norm * solution.residual_norm
            flat[rows] = solution.normal_residual_norm / size.clamp_min(torch.finfo(size.dtype).tiny)
        return flat


def _spread(found: Record, rows: Tensor) -> Record:
    """A record of the ``rows`` (P,) bool in their places; elsewhere numbers are NaN, counts 0."""

    def spread(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return _spread(value, rows)
        blank = torch.nan if value.is_floating_point() else 0
        return value.new_full((len(rows), *value.shape[1:]), blank).index_put((rows,), value)

    fields = dataclasses.fields(found)  # type: ignore[arg-type]
    return type(found)(*(spread(getattr(found, field.name)) for field in fields))


def _wanted(dim: int) -> int:
    """Eigenvalues wanted at each end."""
    return min(EXTREMES, dim // 2)


def _signs(counted: Inertia, rank: Tensor) -> tuple[Signs, Tensor]:
    """Counts in which zeros are those that the symmetries explain, all of them or none, and whether they do. (P,)."""
    explained = counted.n_zero == rank
    zeros = torch.where(explained, counted.n_zero, 0)
    rest = counted.n_undetermined + counted.n_zero - zeros
    return Signs(counted.index, counted.n_positive, zeros, rest), explained


def _last(values: Tensor, count: Tensor, wanted: int) -> Tensor:
    """The ``wanted`` highest of the values that exist, ascending. (P, wanted)."""
    places = count.unsqueeze(1) - wanted + torch.arange(wanted, device=values.device)
    return torch.gather(values, 1, places.clamp_min(0))


def _uncertified(constant: Tensor) -> Certificates:
    """Nothing is certified without a bound of ‖H⁻¹‖."""
    nothing = torch.full_like(constant, torch.nan)
    return Certificates(constant, nothing, [False] * len(constant), ["lanczos"] * len(constant), nothing)


def _rows_at_once(dim: int, steps: int) -> int:
    """How many Lanczos bases fit a chunk."""
    return max(1, CHUNK_BYTES // memory_bytes(1, dim, steps))


def _in_chunks(function: Callable[[Tensor, Tensor], Tensor], steps: int, thetas: Tensor, keys: Tensor) -> Tensor:
    rows = _rows_at_once(thetas.shape[1], steps)
    pairs = zip(torch.split(thetas, rows), torch.split(keys, rows), strict=True)
    return torch.cat([function(theta, key) for theta, key in pairs])
