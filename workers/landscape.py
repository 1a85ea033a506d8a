"""A landscape: a loss over parameters θ ∈ Rⁿ, its derivatives for many θ at once, and what is known of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, grad_and_value, hessian, jvp, vmap

from landsweep.workers import modules
from landsweep.workers.errors import LandscapeError
from landsweep.workers.execution import MINIMUM_ROWS

Scalar = Callable[[Tensor], Tensor]  # θ (n,) → ()
Field = Callable[[Tensor], Tensor]  # θ (n,) → tangent (n,)
Split = tuple[Tensor, Tensor]  # inputs (N, …), labels (N,) or targets (N, c)
Layers = Callable[[Tensor], list[tuple[Tensor, Tensor | None]]]  # θ (n,) → (W (out, in), b (out,) or None) of each
Parts = Iterable[tuple[float, Callable[[Tensor], Tensor]]]  # weights of symmetric maps v (B, n, k) → (B, n, k)
Batched = Callable[[Tensor], Tensor | None]  # (B, n) → (B,); None where there is no closed form for them
Lipschitz = float | Callable[[Tensor, Tensor], Tensor]  # K everywhere, or (θ (n,), radius ()) → K () on that ball

#: Bytes that one chunk of Hessians and their temporaries may take.
CHUNK_BYTES = 256 * 2**20
#: Likewise of MINIMUM_ROWS evaluations on a part of the samples: caches hold it, which halves the time of large sets.
SAMPLES_BYTES = 32 * 2**20
#: Fewest samples that closed products take at once.
LEAST_SAMPLES = 256
#: Bytes of one training step on minibatches by a closed formula: a cache nearly holds it.
MINIBATCH_BYTES = 8 * 2**20


@dataclass(frozen=True)
class KnownClass:
    """A class of stationary points that theory gives: one point up to the landscape's symmetries, or a manifold of
    them."""

    name: str
    kind: str  # of record.KINDS
    index: int | None = None  # None where theory does not say
    n_zero: int | None = None
    objective: float | None = None


@dataclass(frozen=True)
class Descent:
    """Steps of momentum SGD for many θ at once, v ← μv + g + λθ and θ ← θ − η v, each on the next minibatch."""

    velocities: Tensor  # v (B, n)
    index: Tensor  # (B, ·) int64 the samples of all steps, one minibatch after the other, the last perhaps ragged
    size: int  # of a minibatch
    rates: Tensor  # η (S, B) of S steps
    momentum: Tensor  # μ (B,)
    decay: Tensor  # λ (B,)
    nesterov: bool  # θ ← θ − η (g + λθ + μv) instead


@dataclass(frozen=True)
class Supervision:
    """A model and the samples that it is judged on."""

    model: Callable[[Tensor, Tensor], Tensor]  # (θ (n,), inputs (N, …)) → outputs (N, c), sample by sample
    train: Split  # float64 inputs
    test: Split
    loss: str  # cross_entropy | mse


@dataclass(frozen=True)
class Landscape:
    """L(θ) = data loss + regulariser, on the full training set, with what theory knows of it.

    All functions take one θ (n,) and must be transformable by ``torch.func``; the methods take many, (B, n).
    """

    name: str
    dim: int  # n
    loss: Scalar  # L
    init: Callable[[torch.Generator], Tensor]  # → θ (n,), float64
    samples: int = 0  # training samples; 0 for a plain function
    minibatch_loss: Callable[[Tensor, Tensor], Tensor] | None = None  # (θ, sample indices (b,)) → (), the data loss
    closed_minibatch_gradient: Callable[[Tensor, Tensor], Tensor] | None = None  # (B, n), indices (B, b) → (B, n)
    closed_descent: Callable[[Tensor], Callable[[Descent], None] | None] | None = None  # moves (B, n), v in place
    closed_products: Callable[[Tensor], Parts] | None = None  # (B, n) → the data loss's Hessians, as sums over samples
    closed_value_and_gradient: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None  # (B, n) → of the data loss
    batched: Mapping[Scalar, Batched] = dataclasses.field(default_factory=dict)  # closed forms of L, losses and errors
    weight_decay: float = 0.0  # λ of the regulariser λ/2·‖θ‖², which ``loss`` holds and ``minibatch_loss`` does not
    train_loss: Scalar | None = None  # the data loss, without regulariser
    train_error: Scalar | None = None  # fraction of training samples misclassified
    test_loss: Scalar | None = None
    test_error: Scalar | None = None
    outputs: Callable[[Tensor], Tensor] | None = None  # training outputs (m,), invariant under the symmetries
    closed_hessian: Callable[[Tensor], Tensor] | None = None  # (B, n) → (B, n, n), where a formula is known
    hessian_bytes: int = 0  # temporaries of one Hessian; 0 = estimated
    sample_bytes: int = 8 * 256  # what one row's gradient holds of one training sample
    symmetries: tuple[Field, ...] = ()  # tangent fields v(θ) along which L does not change
    hessian_lipschitz: Lipschitz | None = None  # exact K with ‖H(a)−H(b)‖₂ ≤ K‖a−b‖
    global_minimum: float | None = None
    known_class: Callable[[Tensor], KnownClass | None] | None = None  # of a stationary point; None: of no class
    retraction: Callable[[Tensor], Tensor] | None = None  # θ ↦ θ/‖θ‖ on spheres, applied after every step
    kink_distance: Scalar | None = None  # the smallest |pre-activation|, where the model has kinks
    separable: Callable[[Tensor], Tensor] | None = None  # θ → whether no finite minimum exists beyond θ
    supervision: Supervision | None = None  # where outputs are those of a model on samples
    layers: Layers | None = None  # of a fully connected net
    filters: Tensor | None = None  # (F, w) the places in θ of each filter (``measures.flatness.filter_places``)
    notes: tuple[str, ...] = dataclasses.field(default=())

    # --- many θ at once -------------------------------------------------------------------------------------
    def objective(self, thetas: Tensor) -> Tensor:
        """L at each row. (B, n) → (B,)."""
        closed = self._closed(self.loss, thetas)
        if closed is not None:
            return closed
        total = torch.zeros_like(thetas[:, 0])
        for weight, part in self._parts():
            total = total + weight * self.map(part, thetas)
        return total

    def gradient(self, thetas: Tensor) -> Tensor:
        """∇L at each row. (B, n) → (B, n)."""
        return self.value_and_gradient(thetas)[1]

    def value_and_gradient(self, thetas: Tensor) -> tuple[Tensor, Tensor]:
        """(L, ∇L) at each row. (B, n) → (B,), (B, n)."""
        if self.closed_value_and_gradient is not None:
            found = [self._closed_value_and_gradient(rows) for rows in self._few_rows(thetas)]
            return torch.cat([value for value, _ in found]), torch.cat([gradient for _, gradient in found])
        values, gradients = torch.zeros_like(thetas[:, 0]), torch.zeros_like(thetas)
        for weight, part in self._parts():
            chunks = [vmap(grad_and_value(part))(pad_rows(chunk)) for chunk in torch.split(thetas, self.chunk_rows)]
            gradients = gradients + weight * torch.cat([gradient for gradient, _ in chunks])[: len(thetas)]
            values = values + weight * torch.cat([value for _, value in chunks])[: len(thetas)]
        return values, gradients

    def _closed_value_and_gradient(self, thetas: Tensor) -> tuple[Tensor, Tensor]:
        assert self.closed_value_and_gradient is not None
        rows, count = pad_rows(thetas), len(thetas)
        value, slope = self.closed_value_and_gradient(rows)
        value = torch.add(value, (rows * rows).sum(1), alpha=0.5 * self.weight_decay)
        return value[:count], torch.add(slope, rows, alpha=self.weight_decay)[:count]

    def minibatch_gradient(self, thetas: Tensor, index: Tensor) -> Tensor:
        """∇ of the data loss at each row, on the row's own samples. (B, n), indices (B, b) → (B, n)."""
        parts = torch.split(index, self.chunk_samples, dim=1)
        if len(parts) == 1:
            return self._on_samples(thetas, index)
        total = torch.zeros_like(thetas)
        for part in parts:
            total = torch.add(total, self._on_samples(thetas, part), alpha=part.shape[1] / index.shape[1])
        return total

    def _on_samples(self, thetas: Tensor, index: Tensor) -> Tensor:
        assert self.minibatch_loss is not None
        evaluate = self.closed_minibatch_gradient or vmap(grad(self.minibatch_loss))
        rows = self.rows_of(index.shape[1])
        if rows >= len(thetas):
            return padded(evaluate, thetas, index)
        chunks = zip(torch.split(thetas, rows), torch.split(index, rows), strict=True)
        return torch.cat([padded(evaluate, theta, samples) for theta, samples in chunks])

    def hessian(self, thetas: Tensor) -> Tensor:
        """∇²L at each row, as computed (not symmetrised). (B, n) → (B, n, n), in chunks that fit memory."""
        evaluate = self.closed_hessian or vmap(hessian(self.loss))
        return torch.cat([padded(evaluate, chunk) for chunk in torch.split(thetas, self.hessian_rows)])

    def hvp(self, thetas: Tensor, vectors: Tensor) -> Tensor:
        """Hessian–vector products, forward over reverse (Pearlmutter 1994). (B, n), (B, n, m) → (B, n, m).

        In chunks of rows and columns that fit memory. Where the training set is large, samples are taken in chunks of
        equal size and a ragged last one, each weighted by its share. A closed formula takes few rows at once: a cache
        holds them.
        """
        if self.closed_products is not None:
            return self._closed_products(map(self.closed_products, self._few_rows(thetas)), vectors)
        vectors = vectors.contiguous()  # the last bits depend on the layout
        columns = min(vectors.shape[2], max(1, self.chunk_rows // MINIMUM_ROWS))
        if columns < vectors.shape[2]:
            return torch.cat([self.hvp(thetas, part) for part in torch.split(vectors, columns, dim=2)], 2)
        size = max(MINIMUM_ROWS, self.chunk_rows // max(1, columns))
        chunks = zip(torch.split(thetas, size), torch.split(vectors, size), strict=True)
        return torch.cat([padded(self._products, theta, vector) for theta, vector in chunks])

    def products(self, thetas: Tensor) -> Callable[[Tensor], Tensor]:
        """v ↦ ``hvp(thetas, v)``, to the bit; what a closed formula needs of θ is kept where it fits memory."""
        parts = self.samples > samples_of_products(self.sample_bytes)
        if self.closed_products is None or parts or 2 * self.sample_bytes * self.samples * len(thetas) > CHUNK_BYTES:
            return lambda vectors: self.hvp(thetas, vectors)
        kept = [list(self.closed_products(rows)) for rows in self._few_rows(thetas)]
        return lambda vectors: self._closed_products(kept, vectors)

    def _few_rows(self, tensor: Tensor) -> Sequence[Tensor]:
        return torch.split(tensor, self.cached_rows(self.samples))

    def _closed_products(self, hessians: Iterable[Parts], vectors: Tensor) -> Tensor:
        found = []
        for parts, some in zip(hessians, self._few_rows(vectors), strict=True):
            found.append(reduce(Tensor.add_, (product(some).mul_(weight) for weight, product in parts)))
        whole = found[0] if len(found) == 1 else torch.cat([one.mT for one in found]).mT  # both of one layout
        return whole.add_(vectors, alpha=self.weight_decay)

    def _products(self, thetas: Tensor, vectors: Tensor) -> Tensor:
        def product(part: Scalar) -> Callable[[Tensor, Tensor], Tensor]:
            def one(theta: Tensor, vector: Tensor) -> Tensor:
                return jvp(grad(part), (theta,), (vector,))[1]  # type: ignore[no-any-return]

            return vmap(vmap(one, in_dims=(None, 1)))  # (B, m, n): vmap cannot place what is constant elsewhere

        total = torch.zeros_like(vectors)
        for weight, part in self._parts():
            total = total + weight * product(part)(thetas, vectors).mT.contiguous()
        return total

    def _parts(self) -> list[tuple[float, Scalar]]:
        """L as a weighted sum of functions that fit memory: itself, or means over chunks of the training samples."""
        if self.minibatch_loss is None or self.samples <= self.chunk_samples:
            return [(1.0, self.loss)]
        partial = self.minibatch_loss

        def mean_over(index: Tensor) -> Scalar:
            return lambda theta: partial(theta, index.to(theta.device)) + self.regulariser(theta)

        indices = torch.split(torch.arange(self.samples), self.chunk_samples)
        return [(len(index) / self.samples, mean_over(index)) for index in indices]

    def regulariser(self, theta: Tensor) -> Tensor:
        """λ/2·‖θ‖². (n,) → ()."""
        return 0.5 * self.weight_decay * (theta * theta).sum()

    def unregularised(self) -> Landscape:
        """Its data loss alone, for objectives and gradients."""
        if self.train_loss is None or self.minibatch_loss is None:
            return self
        return dataclasses.replace(self, loss=self.train_loss, weight_decay=0.0)

    def retracted(self, thetas: Tensor) -> Tensor:
        """θ back on its manifold, where the landscape has one. (B, n) → (B, n)."""
        return thetas if self.retraction is None else padded(vmap(self.retraction), thetas)

    def map(self, function: Callable[[Tensor], Tensor], thetas: Tensor) -> Tensor:
        """Any of the landscape's functions at each row, in chunks that fit memory."""
        closed = self._closed(function, thetas)
        if closed is not None:
            return closed
        return torch.cat([padded(vmap(function), chunk) for chunk in torch.split(thetas, self.chunk_rows)])

    def _closed(self, function: Callable[[Tensor], Tensor], thetas: Tensor) -> Tensor | None:
        return self.batched[function](thetas) if function in self.batched else None

    @property
    def hessian_rows(self) -> int:
        """How many rows one chunk of Hessians takes."""
        cost = self.hessian_bytes or 8 * (4 * self.dim**2 + 64 * self.dim * max(1, self.samples))
        return max(MINIMUM_ROWS, CHUNK_BYTES // cost)

    @property
    def chunk_samples(self) -> int:
        """How many training samples one evaluation takes at once."""
        return samples_at_once(self.sample_bytes)

    @property
    def chunk_rows(self) -> int:
        """How many rows one chunk of evaluations on all samples takes."""
        return self.rows_of(self.samples)

    def rows_of(self, samples: int) -> int:
        """How many rows one chunk of evaluations takes, on so many samples each."""
        return max(MINIMUM_ROWS, CHUNK_BYTES // (64 * self.dim + self.sample_bytes * max(1, samples)))

    def cached_rows(self, samples: int) -> int:
        """How many rows take a step together on minibatches of so many samples: in float32 each has θ, its gradient,
        the optimiser's state and what the samples hold."""
        return max(MINIMUM_ROWS, MINIBATCH_BYTES // (16 * self.dim + self.sample_bytes // 4 * samples))

    # --- landscapes of the user's own ------------------------------------------------------------------------
    @staticmethod
    def from_function(
        loss: Scalar,
        dim: int,
        init: Callable[[torch.Generator], Tensor],
        *,
        test_loss: Scalar | None = None,
        global_minimum: float | None = None,
        symmetries: Sequence[Field] = (),
        hessian_lipschitz: Lipschitz | None = None,
        known_class: Callable[[Tensor], KnownClass | None] | None = None,
        outputs: Callable[[Tensor], Tensor] | None = None,
        retraction: Callable[[Tensor], Tensor] | None = None,
        name: str = "function",
    ) -> Landscape:
        """A landscape from a plain function ``loss(θ: Tensor[n]) → Tensor[]`` that ``torch.func`` can transform.

        Raises LandscapeError where ``init`` or ``loss`` returns another shape.

        >>> bowl = Landscape.from_function(lambda t: (t**2).sum(), 2, lambda g: torch.randn(2, generator=g))
        >>> bowl.hessian(torch.zeros(1, 2, dtype=torch.float64))[0].tolist()
        [[2.0, 0.0], [0.0, 2.0]]
        """
        if dim < 1:
            raise LandscapeError(f"dim: found {dim}; a landscape has at least one parameter")
        start = init(torch.Generator().manual_seed(0))
        if start.shape != (dim,):
            raise LandscapeError(
                f"init: found a tensor of shape {tuple(start.shape)}; it has to be ({dim},), as dim = {dim}"
            )
        shape = tuple(loss(start.to(torch.float64)).shape)
        if shape != ():
            raise LandscapeError(f"loss: found a tensor of shape {shape}; it has to be one number, of shape ()")
        modules.check_transformable(loss, start.to(torch.float64), "loss")
        return Landscape(
            name=name,
            dim=dim,
            loss=loss,
            init=init,
            train_loss=loss,
            test_loss=test_loss,
            global_minimum=global_minimum,
            symmetries=tuple(symmetries),
            hessian_lipschitz=hessian_lipschitz,
            known_class=known_class,
            outputs=outputs,
            retraction=retraction,
        )

    @staticmethod
    def from_module(
        make_module: Callable[[], torch.nn.Module],
        train: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        *,
        loss: str = "cross_entropy",
        weight_decay: float = 0.0,
        symmetries: Sequence[Field] = (),
        hessian_lipschitz: Lipschitz | None = None,
        name: str = "module",
    ) -> Landscape:
        """A landscape from a torch module that ``torch.func`` can vmap; it is made anew, so re-initialised, per seed.

        L(θ) = mean loss over ``train`` + λ/2·‖θ‖², θ being the module's parameters, flattened in their order.
        """
        from landsweep.workers.measures.flatness import filter_places
        from landsweep.workers.supervised import supervised_landscape

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # buffers drawn at random are part of the landscape: equal in every process
            module = make_module().to(torch.float64)
        modules.check_layers(module)
        shapes = {key: value.shape for key, value in module.named_parameters()}
        sizes = [shape.numel() for shape in shapes.values()]

        def outputs(theta: Tensor, inputs: Tensor) -> Tensor:
            pieces = torch.split(theta, sizes)
            parameters = {key: piece.view(shape) for (key, shape), piece in zip(shapes.items(), pieces, strict=True)}
            return functional_call(module, parameters, (inputs,))  # type: ignore[no-any-return]

        def init(generator: torch.Generator) -> Tensor:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(generator.initial_seed())
                fresh = make_module()
            return torch.cat([p.detach().reshape(-1).to(torch.float64) for p in fresh.parameters()])

        landscape = supervised_landscape(
            name=name,
            dim=sum(sizes),
            model=outputs,
            init=init,
            train=train,
            test=test,
            loss=loss,
            weight_decay=weight_decay,
            symmetries=tuple(symmetries),
            hessian_lipschitz=hessian_lipschitz,
            filters=filter_places(shapes.values()),
        )
        modules.check(landscape, outputs, shapes, weight_decay)
        return landscape


def samples_at_once(sample_bytes: int) -> int:
    """How many samples one evaluation takes, of which each keeps so many bytes."""
    return max(1, SAMPLES_BYTES // (sample_bytes * MINIMUM_ROWS))


def samples_of_products(sample_bytes: int) -> int:
    """Likewise of closed products, which hold the inputs once for all rows: at least a few, however wide they are."""
    return max(LEAST_SAMPLES, samples_at_once(sample_bytes))


def pad_rows(tensor: Tensor) -> Tensor:
    """Repeat the last row until there are ``MINIMUM_ROWS``, so that no kernel depends on their number."""
    missing = MINIMUM_ROWS - tensor.shape[0]
    if missing <= 0 or tensor.shape[0] == 0:
        return tensor
    return torch.cat([tensor, tensor[-1:].expand(missing, *tensor.shape[1:])])


def padded(function: Callable[..., Any], *tensors: Tensor) -> Tensor:
    """``function`` on row-padded tensors, cut back to the rows that were given."""
    rows = tensors[0].shape[0]
    result: Tensor = function(*(pad_rows(tensor) for tensor in tensors))
    return result[:rows]
