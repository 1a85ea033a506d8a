"""What a torch module of a user's own has to be: transformable, sample by sample, without normalised weights that
decay. Cheap, on a few samples: the plan checks it before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from landsweep.workers.errors import LandscapeError
from landsweep.workers.execution import MINIMUM_ROWS

if TYPE_CHECKING:
    from landsweep.workers.landscape import Landscape

Scalar = Callable[[Tensor], Tensor]  # θ (n,) → ()
Model = Callable[[Tensor, Tensor], Tensor]  # (θ (n,), inputs (N, …)) → outputs (N, …)
Shapes = Mapping[str, torch.Size]  # of the tensors that θ holds, in its order

FEW = 8  # samples that are looked at
ALIKE = 1e-9  # relative difference of two outputs that are the same up to rounding
#: Normalisations divide by √(variance + ε): weights so many times as large leave ε without effect.
SCALES = (1e4, 1e5)
INVARIANT = 1e-8  # |g·w|/(‖g‖‖w‖) at or below which outputs do not change with ‖w‖
STEADY = 1e-6  # relative difference of ‖g‖‖w‖ at the two scales: it is constant where outputs do not change with ‖w‖
IDLE = 1e-9  # ‖g‖‖w‖ of a part below this share of the whole is rounding: outputs do not depend on it


def check(landscape: Landscape, model: Model, shapes: Shapes, weight_decay: float) -> None:
    """Refuse a ``landscape`` of a ``model`` that cannot be searched. Raises LandscapeError with what is wrong."""
    theta = landscape.init(torch.Generator().manual_seed(0))
    assert landscape.supervision is not None
    inputs, partial = landscape.supervision.train[0], landscape.minibatch_loss
    index = torch.arange(min(FEW, landscape.samples), device=inputs.device)
    assert partial is not None
    theta = theta.to(inputs.device)
    check_transformable(lambda at: partial(at, index), theta, "module")
    check_samples_apart(model, theta, inputs)
    check_decay(model, theta, inputs, shapes, weight_decay)


def check_layers(module: torch.nn.Module) -> None:
    """Refuse layers that behave otherwise in training than torch.func and the definition of L allow."""
    for name, layer in module.named_modules():
        kind = f"module: {name or 'it'!r} is a {type(layer).__name__}"
        if isinstance(layer, _BatchNorm) and layer.training:
            text = (
                f"{kind}: it keeps running statistics, which torch.func cannot vmap, and an output depends on the other"
            )
            raise LandscapeError(
                f"{text} samples of its batch; take a net without it (or .eval(), whose statistics stay)"
            )
        if isinstance(layer, _DropoutNd) and layer.training and layer.p > 0:
            text = f"{kind} with p = {layer.p:g}: its loss is another at each evaluation, and has no stationary points"
            raise LandscapeError(f"{text}; leave it out, or set p to 0")


def check_transformable(loss: Scalar, theta: Tensor, what: str) -> None:
    """Refuse a ``loss`` whose gradients and Hessian–vector products torch.func cannot take for many θ (n,) at once.

    ``what`` it is called in the message.
    """
    thetas = theta.expand(MINIMUM_ROWS, -1).contiguous()

    def product(theta: Tensor) -> Tensor:
        return jvp(grad(loss), (theta,), (torch.ones_like(theta),))[1]  # type: ignore[no-any-return]

    for derivative, function in (("gradients", grad(loss)), ("products with the Hessian (jvp of grad)", product)):
        try:
            vmap(function)(thetas)
        except Exception as exc:
            reason = str(exc).strip().partition("\n")[0]
            text = f"{what}: torch.func cannot vmap its {derivative}: {type(exc).__name__}: {reason}"
            raise LandscapeError(f"{text}; write it in differentiable torch operations, out of place") from exc


def check_samples_apart(model: Model, theta: Tensor, inputs: Tensor) -> None:
    """Refuse a model whose output for a sample depends on the samples beside it: L is then no mean over samples."""
    few = inputs[:FEW].to(theta.dtype)
    with torch.no_grad():
        together, apart = model(theta, few), torch.cat([model(theta, few[i : i + 1]) for i in range(len(few))])
    if not bool((together - apart).norm() <= ALIKE * (1 + apart.norm())):
        text = "module: its output for a sample depends on the other samples of the batch (statistics over the batch?)"
        raise LandscapeError(f"{text}; L has to be a mean over samples: normalise within a sample, or not at all")


def check_decay(model: Model, theta: Tensor, inputs: Tensor, shapes: Shapes, weight_decay: float) -> None:
    """Refuse weight decay on normalised weights."""
    name = normalised(model, theta, inputs, shapes) if weight_decay > 0 else None
    if name is not None:
        text = f"module: {name} is normalised: outputs do not change with its size ‖w‖, so weight decay λ leaves no "
        raise LandscapeError(
            f"{text}stationary point, w·g = λ‖w‖²; set weight_decay to 0, or leave the normalisation out"
        )


def normalised(model: Model, theta: Tensor, inputs: Tensor, shapes: Shapes) -> str | None:
    """The first tensor, layer or output row w of θ (n,) with f(…, t·w, …) = f(…, w, …) for large t; None: no such.

    Then w·∇f = 0 and ‖w‖‖∇_w f‖ is the same at every t (Euler, degree 0), f being a random projection of the outputs.
    A layer is the tensors that one submodule holds (weight and bias). What only several layers together can be scaled
    by, as the residual stream before a last normalisation, is not found.
    """
    few = inputs[:FEW].to(theta.dtype)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        weights = torch.randn(model(theta, few).shape, generator=generator, dtype=torch.float64).to(theta)
    theta = theta + 0.1 * torch.randn(len(theta), generator=generator, dtype=torch.float64).to(theta)
    slope = grad(lambda at: (weights * model(at, few)).sum())
    whole = float(slope(theta).norm() * theta.norm())
    for places, parts in _groups(shapes):
        scaled = []
        for scale in SCALES:
            at = theta.clone()
            at[places] *= scale
            scaled.append((at, slope(at)))
        for name, part in parts:
            if _invariant([(at[part], gradient[part]) for at, gradient in scaled], IDLE * whole):
                return name
    return None


def _invariant(scaled: list[tuple[Tensor, Tensor]], idle: float) -> bool:
    """Whether f does not change with the size of w: (w, ∇_w f) at each scale."""
    sizes = [float(w.norm() * g.norm()) for w, g in scaled]
    flat = all(abs(float(w @ g)) <= INVARIANT * size for (w, g), size in zip(scaled, sizes, strict=True))
    return flat and idle < max(sizes) < float("inf") and abs(sizes[0] - sizes[1]) <= STEADY * max(sizes)


def _groups(shapes: Shapes) -> Iterator[tuple[slice, list[tuple[str, slice]]]]:
    """Places in θ to be scaled together, with the parts of them that may not matter then: a tensor with its rows, and
    the tensors of a layer."""
    places, offset = dict[str, slice](), 0
    for name, shape in shapes.items():
        places[name] = slice(offset, offset := offset + shape.numel())
        rows = shape[0] if len(shape) > 1 else 1
        width = shape.numel() // max(1, rows)
        first = places[name].start
        parts = [(f"row {i} of {name!r}", slice(first + i * width, first + (i + 1) * width)) for i in range(rows)]
        yield places[name], [(repr(name), places[name]), *(parts if rows > 1 else [])]
    for layer, names in groupby(places, key=lambda name: name.rpartition(".")[0]):
        members = list(names)
        if len(members) > 1:
            together = slice(places[members[0]].start, places[members[-1]].stop)
            yield together, [(f"{layer!r} ({', '.join(name.rpartition('.')[2] for name in members)})", together)]
