"""Both ends of the spectra of symmetric operators by block Lanczos, each Ritz value with its error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers.krylov.decomposition import Apply, Decomposition, decompositions, random_block
from landsweep.workers.landscape import padded

BLOCK = 4  # resolves clusters of up to four eigenvalues as fast as single ones
CLUSTER = 4.0  # standard deviations from a Ritz value in an unresolved cluster to the cluster's end


@dataclass(frozen=True)
class Ritz:
    """Ritz pairs (θ, v) of B operators; k = steps·b columns, NaN where fewer exist."""

    values: Tensor  # (B, k) ascending θ
    residuals: Tensor  # (B, k) ‖Av − θv‖
    errors: Tensor  # (B, k) an eigenvalue lies this near θ
    count: Tensor  # (B,) how many exist
    steps: Tensor  # (B,) block steps taken
    converged: Tensor  # (B,) bool: the wanted extremes' errors met the tolerance, or the space was exhausted
    exhausted: Tensor  # (B,) bool: all eigenvalues of the (deflated) operator are among the Ritz values
    basis: Tensor  # (B, k, n) Lanczos vectors as rows, zero for steps not taken: early rows do not depend on late ones
    coefficients: Tensor  # (B, k, k) v = basisᵀ·column
    block: int  # b

    @property
    def lowest(self) -> Tensor:
        """θ_min. (B,)."""
        return self.values[:, 0]

    @property
    def highest(self) -> Tensor:
        """θ_max. (B,)."""
        return _at(self.values, self.count - 1)

    @property
    def norm(self) -> Tensor:
        """max |θ|, which is at most ‖A‖. (B,)."""
        return torch.maximum(self.lowest.abs(), self.highest.abs())

    @property
    def lowest_error(self) -> Tensor:
        """Stated |θ_min − λ_min| (:func:`end_errors`). (B,)."""
        return end_errors(self.residuals, self.errors)[:, 0]

    @property
    def highest_error(self) -> Tensor:
        """Stated |θ_max − λ_max|. (B,)."""
        return _at(end_errors(self.residuals, self.errors), self.count - 1)

    def vectors(self, lowest: int, highest: int) -> Tensor:
        """Ritz vectors of the ``lowest`` and ``highest`` values, ascending. (B, n, lowest + highest)."""
        last = self.count.unsqueeze(1) - highest + torch.arange(highest, device=self.count.device)
        first = torch.arange(lowest, device=self.count.device).expand(len(self.count), lowest)
        chosen = torch.cat([first, last], 1).clamp_min(0).unsqueeze(1).expand(-1, self.values.shape[1], -1)
        return combined(self.basis, torch.gather(self.coefficients, 2, chosen))


def combined(basis: Tensor, coefficients: Tensor) -> Tensor:
    """QᵀS, Q's rows being vectors: taken as (SᵀQ)ᵀ, a fraction of the time. (B, k, n), (B, k, m) → (B, n, m)."""
    return padded(lambda q, s: (s.mT.contiguous() @ q).mT.contiguous(), basis, coefficients)


def memory_bytes(rows: int, dim: int, steps: int, block: int = BLOCK) -> int:
    """What the basis of :func:`lanczos` takes: 8·B·n·k bytes, k = steps·b.

    >>> memory_bytes(1, 100_000, 25)
    80000000
    """
    return 8 * rows * dim * steps * block


def lanczos(
    apply: Apply,
    dim: int,
    keys: Tensor,
    steps: int,
    *,
    lowest: int = 1,
    highest: int = 1,
    tolerance: float = 0.0,
    block: int = BLOCK,
    deflation: Tensor | None = None,
) -> Ritz:
    """Ritz pairs from a random start (``keys`` (B,)), until the errors of the ``lowest`` and ``highest`` wanted are at
    most ``tolerance``·‖A‖, or ``steps`` blocks are spent; each row stops by itself.

    ``deflation`` (B, n, s), orthonormal or zero columns, is left out: the operator is A on its complement. With
    k = n the Ritz values are all eigenvalues. A row whose products are not finite gets NaN.
    """
    block = max(1, min(block, dim - 2))
    steps = min(steps, -(-dim // block))
    rows, width = len(keys), steps * block
    values, residuals, errors = (keys.new_full((rows, width), torch.nan, dtype=torch.float64) for _ in range(3))
    coefficients = torch.zeros(rows, width, width, dtype=torch.float64, device=keys.device)
    count, taken = torch.zeros_like(keys), torch.zeros_like(keys)
    done, converged, exhausted = (torch.zeros_like(keys, dtype=torch.bool) for _ in range(3))
    check = 1
    for now in decompositions(apply, random_block(keys, dim, block, 0), keys, steps, deflation):
        if now.steps < min(check, steps):
            continue
        check = now.steps + max(1, now.steps // 4)  # decomposing T at every step would cost more than A
        theta, residual, error, vectors = ritz_pairs(now, dim)
        met = _met(theta, end_errors(residual, error), now, lowest, highest, tolerance)
        new = ~done & (met | ~now.finite | (now.steps == steps))
        width = theta.shape[1]
        values[new, :width], residuals[new, :width], errors[new, :width] = theta[new], residual[new], error[new]
        coefficients[new, :width, :width] = vectors[new]
        count[new], taken[new], converged[new], exhausted[new] = (
            now.count[new], now.steps, (met & now.finite)[new], now.exhausted[new],
        )  # fmt: skip
        done |= new
        if bool(done.all()):
            break
    return Ritz(values, residuals, errors, count, taken, converged, exhausted, now.whole, coefficients, block)


def ritz_pairs(now: Decomposition, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ritz values, residuals, stated errors (B, k) and coefficients (B, k, k) of a decomposition.

    ‖Av − θv‖ = ‖R s_last‖ for v = Qs, as AQ − QT = VR has only its last block. Rounding is dim·eps·‖T‖, and half of
    the measured asymmetry of T, which stands for that of A.
    """
    symmetric = 0.5 * (now.projected + now.projected.mT)
    missing = torch.arange(symmetric.shape[1], device=symmetric.device) >= now.count.unsqueeze(1)
    beyond = 1 + 2 * symmetric.norm(dim=(1, 2))  # sorts the columns that do not exist to the end
    values, vectors = torch.linalg.eigh(symmetric + torch.diag_embed(missing * beyond.unsqueeze(1)))
    absent = missing | ~now.finite.unsqueeze(1)
    residuals = (now.coupling @ vectors[:, -now.coupling.shape[2] :]).norm(dim=1).masked_fill(absent, torch.nan)
    values, vectors = values.masked_fill(absent, torch.nan), vectors.masked_fill(absent.unsqueeze(1), 0.0)
    norm = torch.nan_to_num(values).abs().amax(1)
    asymmetry = (now.projected - now.projected.mT).norm(dim=(1, 2))
    rounding = dim * torch.finfo(values.dtype).eps * norm + 0.5 * asymmetry
    return values, residuals, stated_errors(values, residuals) + rounding.unsqueeze(1), vectors


def stated_errors(values: Tensor, residuals: Tensor) -> Tensor:
    """min(ρ, ρ²/gap) for each Ritz value. (B, k) ascending, (B, k) → (B, k).

    An eigenvalue within ρ of θ is proved; ρ²/gap holds if no second one is nearer than the gap (Kato 1949, Temple
    1933; Parlett 1998, theorem 11.7.1). The gap is estimated: from θ to the nearest interval θ_j ± ρ_j of another.

    >>> stated_errors(torch.tensor([[0.0, 1.1]]), torch.tensor([[0.01, 0.1]])).tolist()[0][0] < 1.1e-4
    True
    """
    far = torch.full_like(values[:, :1], torch.inf)
    lower = torch.nan_to_num(values - residuals, nan=torch.inf)
    upper = torch.nan_to_num(values + residuals, nan=torch.inf)
    above = torch.cat([lower.flip(1).cummin(1).values.flip(1)[:, 1:], far], 1) - values
    below = values - torch.cat([-far, upper.cummax(1).values[:, :-1]], 1)
    gap = torch.minimum(above, below)
    known = (gap > 0) & torch.isfinite(gap)
    return torch.where(known, torch.minimum(residuals, residuals**2 / gap), residuals)


def end_errors(residuals: Tensor, errors: Tensor) -> Tensor:
    """How far the i-th Ritz value from an end is from the i-th eigenvalue. (B, k), (B, k) → (B, k).

    The error where θ is separated (ρ²/gap < ρ). Elsewhere that some eigenvalue is within ρ says little of the last: the
    spectral measure of v has mean θ and standard deviation ρ, and the end of the cluster is estimated to lie within
    CLUSTER of these. :func:`~landsweep.workers.krylov.bounds.bounds` proves more, and costs more.
    """
    return torch.where(errors < residuals, errors, errors + (CLUSTER - 1) * residuals)


def _met(values: Tensor, errors: Tensor, now: Decomposition, lowest: int, highest: int, tolerance: float) -> Tensor:
    """Whether the wanted extremes are known well enough. (B,) bool."""
    order = torch.arange(values.shape[1], device=values.device)
    last = now.count.unsqueeze(1)
    wanted = (order < last) & ((order < lowest) | (order >= last - highest))
    worst = torch.where(wanted, errors, 0.0).amax(1)
    enough = torch.nan_to_num(values).abs().amax(1) * tolerance
    return now.exhausted | ((worst <= enough) & (now.count >= lowest + highest))


def _at(values: Tensor, position: Tensor) -> Tensor:
    """One entry a row. (B, k), (B,) → (B,)."""
    return torch.gather(values, 1, position.clamp_min(0).unsqueeze(1)).squeeze(1)
