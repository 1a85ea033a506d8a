"""What is known of the gradient and the Hessian at many points, however it was measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from landsweep.workers.quadratic import LocalModel

Record = TypeVar("Record")


@dataclass(frozen=True)
class Curvature:
    """One row a point; NaN where not measured."""

    gradient_norm: Tensor  # (P,) ‖g‖₂
    newton_length: Tensor  # (P,) ρ = ‖H⁺g‖ off the symmetries' directions
    finite: Tensor  # (P,) bool
    n_symmetry: Tensor  # (P,) rank of the symmetries' tangents
    norm: Tensor  # (P,) ‖H‖₂
    eigenvalues: Tensor  # (P, k) ascending: all n of them, or the lowest and the highest
    lowest: Tensor  # (P, n) unit eigenvector of the smallest eigenvalue
    trace: Tensor  # (P,)
    trace_error: Tensor  # (P,) stated error of an estimate; 0 for a sum of all eigenvalues
    frobenius: Tensor  # (P,)

    @property
    def whole(self) -> bool:
        """Whether ``eigenvalues`` are all there are."""
        return self.eigenvalues.shape[1] == self.lowest.shape[1]

    @staticmethod
    def dense(model: LocalModel) -> Curvature:
        """From whole eigensystems."""
        values = torch.where(model.finite.unsqueeze(1), model.eigenvalues, torch.nan)
        length = model.gradient.norm(dim=1)
        return Curvature(
            length, model.newton_length, model.finite, model.n_symmetry, model.norm, values,
            model.eigenvectors[:, :, 0].clone(), values.sum(1), torch.zeros_like(length), values.norm(dim=1),
        )  # fmt: skip


def joined(parts: Sequence[Record]) -> Record:
    """Records of the same class, row after row: tensors and lists end to end, records inside them likewise."""

    def together(values: Sequence[Any]) -> Any:
        if isinstance(values[0], Tensor):
            return torch.cat(list(values))
        if isinstance(values[0], list):
            return [entry for value in values for entry in value]
        return joined(values)

    names = [field.name for field in dataclasses.fields(parts[0])]  # type: ignore[arg-type]
    return type(parts[0])(*(together([getattr(part, name) for part in parts]) for name in names))
