"""Saddles of a requested index: high-index saddle dynamics."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from landsweep.workers import streams
from landsweep.workers.krylov.minres import Apply
from landsweep.workers.landscape import Landscape, pad_rows, padded
from landsweep.workers.matrix_free import CONVEX, MatrixFreeState, begun, codes, measured, probed, went
from landsweep.workers.quadratic import eigh
from landsweep.workers.search import is_critical

FIRST_PASSES = 12  # of the subspace iteration at the start
REACH = 0.1  # steps are no longer than this share of 1 + ‖θ‖, at first
LONGEST = 0.5  # and never longer than this
SHIFT = 2.0  # the symmetries' directions are lifted to this multiple of ‖H‖
PATIENCE = 150  # iterations without 1 % progress; ‖g‖ rises on the way uphill


@dataclass(frozen=True)
class SaddleState(MatrixFreeState):
    """The k lowest modes in the first k columns, zeros in the others."""

    index: Tensor  # (B,) int64, k
    modes: Tensor  # (B, n, K) orthonormal
    changes: Tensor  # (B, n, K) what the last iteration added to them
    ritz: Tensor  # (B, K) their vᵀHv, ascending
    force: Tensor  # (B, n) F = −(I − 2VVᵀ)g
    time: Tensor  # (B,) τ: θ + τF is tried next
    reach: Tensor  # (B,) longest step, relative to 1 + ‖θ‖
    escape: Tensor  # (B, n) unit direction out of a critical point of another index, 0 elsewhere
    norm: Tensor  # (B,) largest |vᵀHv| met


def rayleigh_ritz(apply: Apply, modes: Tensor, products: Tensor, more: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The w lowest Ritz pairs of span(V, E), and their part in E off V. V (B, n, w) orthonormal with ``products`` HV,
    E (B, n, e) arbitrary → (B, w), (B, n, w), (B, n, w)."""
    rows, _, width = modes.shape
    orthogonal, triangular = torch.linalg.qr(pad_rows(torch.cat([modes, more], 2)))
    basis, rest = orthogonal[:rows], orthogonal[:rows, :, width:].contiguous()
    sign = torch.diagonal(triangular[:rows], dim1=1, dim2=2)[:, :width].sign()  # the first columns are ±V
    images = torch.cat([products * sign.unsqueeze(1), apply(rest) if rest.shape[2] else rest], 2)
    gram = padded(lambda left, right: left.mT @ right, basis, images)
    values, vectors, _ = eigh(gram)  # (a row that is not finite keeps its NaN in ``basis``)
    lowest = vectors[:, :, :width].contiguous()
    found = padded(torch.matmul, basis, lowest)
    return values[:, :width], found, padded(torch.matmul, rest, lowest[:, width:].contiguous())


def tracked(apply: Apply, modes: Tensor, changes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One pass of LOBPCG (Knyazev 2001) without preconditioner: Rayleigh–Ritz on span(V, HV − V(VᵀHV), last change)."""
    products = apply(modes)
    gram = padded(lambda left, right: left.mT @ right, modes, products)
    residual = products - padded(torch.matmul, modes, gram)
    return rayleigh_ritz(apply, modes, products, torch.cat([_unit(residual), _unit(changes)], 2))


def _unit(block: Tensor) -> Tensor:
    """Columns of length 1, those at rounding level 0."""
    length = block.norm(dim=1, keepdim=True)
    return torch.where(length > torch.finfo(block.dtype).tiny, block / length, 0.0)


@dataclass(frozen=True)
class HighIndexSaddleDynamics:
    """θ' = −(I − 2VVᵀ)g, V the k lowest modes of H: uphill along these, downhill along the others, so that exactly the
    saddles of index k attract (Yin, Zhang & Zhang 2019).

    V is tracked by one pass of LOBPCG a step; time steps are Barzilai–Borwein's with ‖τF‖ limited, and the limit
    follows how well H predicts the change of g. At a critical point k negative Ritz values bound the index from below
    (Cauchy), and Lanczos from a random direction off V looks for more; one of another index is left along the mode of
    wrong sign.
    """

    tolerance: float
    index: Tensor  # (B,) the requested index k of each start

    def init(self, landscape: Landscape, starts: Tensor, scale: Tensor) -> SaddleState:
        base = begun(landscape, starts, scale)
        index = self.index.to(device=starts.device, dtype=torch.int64)
        rows, dim = starts.shape
        widest = int(index.max()) if rows else 0
        key = streams.keys("saddle_dynamics", [0], "modes", starts.device)
        block = streams.normal(key, 0, dim * widest).view(1, widest, dim).mT
        ranks = torch.arange(widest, device=starts.device)
        block = torch.where(ranks < index[:, None, None], block, 0.0)
        none = torch.zeros_like(base.value)
        state = SaddleState(
            **vars(base), index=index, modes=block, changes=torch.zeros_like(block), ritz=block[:, 0], force=base.theta,
            time=none, reach=none + REACH, escape=torch.zeros_like(base.theta), norm=none,
        )  # fmt: skip
        state = followed(landscape, state, base.finite, FIRST_PASSES)
        state = dataclasses.replace(state, force=_force(state))
        size = state.force.norm(dim=1).clamp_min(torch.finfo(none.dtype).tiny)
        state = dataclasses.replace(state, time=(0.1 * REACH * (1 + state.theta.norm(dim=1)) / size).clamp_max(1.0))
        return self._checked(landscape, measured(landscape, state, state.gradient.norm(dim=1), self.tolerance))

    def step(self, landscape: Landscape, state: SaddleState) -> SaddleState:
        move = self._move(state)
        proposal = landscape.retracted(state.theta + move)
        value, gradient = landscape.value_and_gradient(proposal)
        image = landscape.hvp(state.theta, move.unsqueeze(2)).squeeze(2)
        size = image.norm(dim=1) + state.gradient.norm(dim=1)
        error = torch.nan_to_num((gradient - state.gradient - image).norm(dim=1) / size, nan=torch.inf)
        usable = torch.isfinite(value) & torch.isfinite(gradient).all(1)
        accept = (error < 1) & usable
        length = move.norm(dim=1) / (1 + state.theta.norm(dim=1))
        reach = torch.where(error < 0.3, (2 * state.reach).clamp_max(LONGEST), state.reach)
        after = went(landscape, state, proposal, value, gradient, accept)
        after = dataclasses.replace(
            after,
            reach=torch.where(accept, reach, 0.25 * length),
            escape=torch.where(accept.unsqueeze(1), 0.0, after.escape),
            stuck=~accept & (length < 1e-13),
        )
        after = followed(landscape, after, accept, 1)
        after = dataclasses.replace(after, force=_force(after))
        after = dataclasses.replace(after, time=barzilai_borwein(state, after, accept))
        return self._checked(landscape, measured(landscape, after, after.gradient.norm(dim=1), self.tolerance))

    def terminate(self, state: SaddleState) -> Tensor:
        return codes(state, is_critical(state, self.tolerance) & (state.escape == 0).all(1), PATIENCE)

    def _move(self, state: SaddleState) -> Tensor:
        """τF within reach, or the way out of a critical point."""
        limit = state.reach * (1 + state.theta.norm(dim=1))
        size = state.force.norm(dim=1).clamp_min(torch.finfo(limit.dtype).tiny)
        along = torch.minimum(state.time, limit / size).unsqueeze(1) * state.force
        leaves = (state.escape != 0).any(1, keepdim=True)
        return torch.where(leaves, limit.unsqueeze(1) * state.escape, along)

    def _checked(self, landscape: Landscape, state: SaddleState) -> SaddleState:
        """With the way out of critical points whose index is another than k."""
        rows = torch.nonzero(is_critical(state, self.tolerance) & (state.escape == 0).all(1)).flatten()
        if rows.numel() == 0:
            return state
        here = state.take(rows)
        highest = (here.index - 1).clamp_min(0)
        # (a start with k = 0 has no modes, and none of wrong sign)
        missing = torch.zeros_like(rows, dtype=torch.bool)
        way = torch.zeros_like(here.theta)
        if here.modes.shape[2]:
            last = here.ritz.gather(1, highest.unsqueeze(1)).squeeze(1)
            missing = (here.index > 0) & (last > -CONVEX * here.norm)
            way = here.modes.gather(2, highest[:, None, None].expand(-1, here.modes.shape[1], 1)).squeeze(2)
        curvature, direction = probed(landscape, here.theta, torch.cat([here.span, here.modes], 2))
        way = torch.where(missing.unsqueeze(1), way, torch.where((curvature < 0).unsqueeze(1), direction, 0.0))
        wrong = torch.zeros_like(state.stuck).index_copy(0, rows, missing | (curvature < 0))
        return dataclasses.replace(
            state,
            escape=state.escape.index_copy(0, rows, way),
            reach=torch.where(wrong, REACH, state.reach),
            best=torch.where(wrong, torch.inf, state.best),
            since=torch.where(wrong, 0, state.since),
        )


def _force(state: SaddleState) -> Tensor:
    """F = −(I − 2VVᵀ)g. (B, n)."""
    inside = (state.modes * state.gradient.unsqueeze(2)).sum(1)
    return 2 * (state.modes * inside.unsqueeze(1)).sum(2) - state.gradient


def barzilai_borwein(before: SaddleState, after: SaddleState, accept: Tensor) -> Tensor:
    """τ = |Δθ·ΔF|/‖ΔF‖², as before where there is no change (Yin, Zhang & Zhang 2019, 3.3). (B,)."""
    change = after.force - before.force
    square = (change**2).sum(1)
    fresh = ((after.theta - before.theta) * change).sum(1).abs() / square
    return torch.where(accept & torch.isfinite(fresh) & (fresh > 0), fresh, before.time)


def followed(landscape: Landscape, state: SaddleState, which: Tensor, passes: int) -> SaddleState:
    """With the modes of the rows ``which`` (B,) bool tracked at their θ. Rows of equal k go together: the width of a
    block, and with it the last bits, is the row's own."""
    modes, changes, ritz = state.modes.clone(), state.changes.clone(), state.ritz.clone()
    for k in torch.unique(state.index[which]).tolist():
        rows = torch.nonzero(which & (state.index == k)).flatten()
        if k == 0:
            continue
        theta, span, shift = state.theta[rows], state.span[rows], _shift(state, rows)

        def apply(block: Tensor, theta: Tensor = theta, span: Tensor = span, shift: Tensor = shift) -> Tensor:
            """PHP + σQQᵀ: the symmetries' directions lie above what is looked for."""
            inside = padded(lambda q, x: q @ (q.mT @ x), span, block)
            image = landscape.hvp(theta, block - inside)
            return image - padded(lambda q, x: q @ (q.mT @ x), span, image) + shift[:, None, None] * inside

        here = padded(lambda block: torch.linalg.qr(block)[0], modes[rows, :, :k].contiguous())
        change = changes[rows, :, :k].contiguous()
        values = ritz[rows, :k]
        for _ in range(passes):
            values, here, change = tracked(apply, here, change)
        modes[rows, :, :k], changes[rows, :, :k], ritz[rows, :k] = here, change, values
    norm = torch.maximum(state.norm, ritz.abs().amax(1)) if ritz.shape[1] else state.norm
    finite = state.finite & torch.isfinite(modes).flatten(1).all(1)
    return dataclasses.replace(state, modes=modes, changes=changes, ritz=ritz, norm=norm, finite=finite)


def _shift(state: SaddleState, rows: Tensor) -> Tensor:
    """σ, well above the lowest modes. (B,)."""
    return SHIFT * torch.maximum(state.scale[rows], state.norm[rows])
