"""The dense Hessian of any model, a few columns at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from landsweep.workers.landscape import Scalar


@dataclass(frozen=True)
class ColumnHessian:
    """Called with thetas (B, n), gives ∇²L (B, n, n), its columns H·e_j by forward over reverse (Pearlmutter 1994).

    ``torch.func.hessian`` holds the temporaries of all n products at once; here it is those of ``columns``, a number
    that depends on neither B nor the row.
    """

    loss: Scalar
    columns: int

    def __call__(self, thetas: Tensor) -> Tensor:
        def product(theta: Tensor, vector: Tensor) -> Tensor:
            return jvp(grad(self.loss), (theta,), (vector,))[1]  # type: ignore[no-any-return]

        products = vmap(vmap(product, (None, 0), out_dims=1), (0, None))  # (B, n), (m, n) → (B, n, m)
        identity = torch.eye(thetas.shape[1], dtype=thetas.dtype, device=thetas.device)
        return torch.cat([products(thetas, vectors) for vectors in torch.split(identity, self.columns)], 2)
