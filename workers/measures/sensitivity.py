"""How outputs move with inputs and parameters: Jacobian norms and the trace of the Fisher information."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from landsweep.workers.execution import MINIMUM_ROWS
from landsweep.workers.landscape import CHUNK_BYTES, Supervision, padded

Quantity = Callable[[Tensor, Tensor], Tensor]  # (θ (n,), one input) → ()
_HIDDEN = 1024  # numbers that one input keeps in the layers of the way back, roughly


def jacobian_norm(supervision: Supervision, thetas: Tensor, inputs: Tensor) -> Tensor:
    """E_x‖∂z/∂x‖_F, the mean over ``inputs`` (N, …), z the outputs (logits). (P,).

    Novak, Bahri, Abolafia, Pennington & Sohl-Dickstein 2018, section 3.1, who take class probabilities for z; logits
    are defined for every loss, and do not fall with the confidence.
    """

    def quantity(theta: Tensor, x: Tensor) -> Tensor:
        jacobian: Tensor = jacrev(_output(supervision), argnums=1)(theta, x)
        return torch.sqrt(jacobian.square().sum())

    return _mean(quantity, thetas, inputs, supervision, inputs[0].numel())


def parameter_jacobian_norm(supervision: Supervision, thetas: Tensor, inputs: Tensor) -> Tensor:
    """E_x‖∂z/∂θ‖_F, the mean over ``inputs`` (N, …); its square is the trace of the neural tangent kernel at x (Jacot,
    Gabriel & Hongler 2018). (P,)."""

    def quantity(theta: Tensor, x: Tensor) -> Tensor:
        jacobian: Tensor = jacrev(_output(supervision))(theta, x)
        return torch.sqrt(jacobian.square().sum())

    return _mean(quantity, thetas, inputs, supervision, thetas.shape[1])


def fisher_trace(supervision: Supervision, thetas: Tensor, inputs: Tensor) -> Tensor:
    """tr F, F = E_x E_{y~p(y|x,θ)} ∇log p(y|x,θ) ∇log p(y|x,θ)ᵀ, of the likelihood whose −log is the loss. (P,).

    The true Fisher information: y is drawn by the model, here summed over in closed form, not taken from the labels
    (which gives the empirical one; Kunstner, Balles & Hennig 2019 say why not). It is the Gauss–Newton matrix of the
    data loss (Martens 2020, section 9), so tr H = tr F + n·λ + what the residuals add. With J = ∂z/∂θ (c, n):
    cross_entropy Σ_k p_k‖J_k − Σ_j p_j J_j‖², p = softmax(z); mse, the mean over c outputs, (2/c)·‖J‖_F².
    """

    def quantity(theta: Tensor, x: Tensor) -> Tensor:
        output = _output(supervision)
        jacobian: Tensor = jacrev(output)(theta, x)
        if supervision.loss == "mse":
            return torch.mul(jacobian.square().sum(), 2.0 / len(jacobian))
        p = torch.softmax(output(theta, x), 0).unsqueeze(1)
        centred = jacobian - (p * jacobian).sum(0)
        return torch.sum(p * centred.square())

    return _mean(quantity, thetas, inputs, supervision, thetas.shape[1])


def _output(supervision: Supervision) -> Quantity:
    """z (c,) of one θ and one input."""
    return lambda theta, x: supervision.model(theta, x.unsqueeze(0)).reshape(-1)


def _mean(quantity: Quantity, thetas: Tensor, inputs: Tensor, supervision: Supervision, columns: int) -> Tensor:
    """The mean of ``quantity`` over ``inputs`` at each row; a Jacobian has ``columns`` columns. (P,).

    In chunks of samples that depend on the landscape alone, and of as many rows as then fit memory.
    """
    outputs = math.prod(supervision.model(thetas[0], inputs[:1]).shape)
    cost = 8 * outputs * (3 * columns + _HIDDEN)
    samples = max(1, min(len(inputs), CHUNK_BYTES // (MINIMUM_ROWS * cost)))
    rows = max(MINIMUM_ROWS, CHUNK_BYTES // (samples * cost))
    evaluate = vmap(vmap(quantity, in_dims=(None, 0)), in_dims=(0, None))
    sums = []
    for theta in torch.split(thetas, rows):
        parts = [padded(lambda t, part=part: evaluate(t, part), theta).sum(1) for part in torch.split(inputs, samples)]
        sums.append(torch.stack(parts).sum(0))
    return torch.cat(sums) / len(inputs)
