"""The dense Hessian of any model, a few columns at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ColumnHessian:
    """Called with thetas (B, n), gives ∇²L (B, n, n), its columns H·e_j by Hessian-vector products.

    ``torch.func.hessian`` holds the temporaries of all n products at once; here it is those of ``columns``, a number
    that depends on neither B nor the row.
    """

    products: Callable[[Tensor, Tensor], Tensor]  # (B, n), (B, n, m) → (B, n, m), as ``Landscape.hvp``
    columns: int

    def __call__(self, thetas: Tensor) -> Tensor:
        identity = torch.eye(thetas.shape[1], dtype=thetas.dtype, device=thetas.device)
        units = torch.split(identity.expand(len(thetas), -1, -1), self.columns, 2)
        return torch.cat([self.products(thetas, unit) for unit in units], 2)
