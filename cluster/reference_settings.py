"""The reference landscapes' sections of a sweep file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from landsweep.cluster.sections import AsTuple, Positive, Section, Seed

Numbers = Annotated[tuple[Positive, ...], AsTuple]
Size = Annotated[int, Field(ge=1, le=4096)]


class LinearAutoencoder(Section):
    """½ tr((I − W₂W₁)Σ(I − W₂W₁)ᵀ): all critical points in closed form (Baldi & Hornik 1989)."""

    name: Literal["linear_autoencoder"] = Field(description="reference landscape")
    k: Size = Field(default=16, description="input dimension")
    p: Size = Field(default=4, description="hidden units, at most k")
    variances: Numbers | None = Field(default=None, description="k distinct variances; null: 1 … k")


class MatrixFactorisation(Section):
    """¼‖UUᵀ − M‖²: all critical points in closed form."""

    name: Literal["matrix_factorisation"] = Field(description="reference landscape")
    n: Size = Field(default=8, description="rows of U")
    rank: Size = Field(default=3, description="columns of U")
    eigenvalues: Numbers | None = Field(default=None, description="distinct eigenvalues of M; null: n … 1, scaled")


class DeepFactorisation(Section):
    """½‖W_L…W_1 − Y‖²: the deep linear network on whitened inputs (Kawaguchi 2016)."""

    name: Literal["deep_factorisation"] = Field(description="reference landscape")
    widths: Annotated[tuple[Size, ...], AsTuple] = Field(
        default=(3, 3, 3, 3), min_length=3, description="input, hidden layers, output"
    )
    singular_values: Numbers | None = Field(default=None, description="of Y, distinct; null: evenly spaced")


class PhaseRetrieval(Section):
    """The population objective of real phase retrieval (Sun, Qu & Wright 2018)."""

    name: Literal["phase_retrieval"] = Field(description="reference landscape")
    n: int = Field(default=10, ge=2, le=4096, description="dimension")
    norm: Positive = Field(default=1.0, description="of the signal")


class Ica(Section):
    """Independent components on the sphere, −¼ Σ (aᵢ·θ)⁴: the population objective of an orthogonal dictionary."""

    name: Literal["ica"] = Field(description="reference landscape")
    n: int = Field(default=8, ge=2, le=4096, description="dimension")
    seed: Seed = Field(default=0, description="of the basis")


class TensorDecomposition(Section):
    """An orthogonal tensor's components on the sphere (Ge, Huang, Jin & Yuan 2015)."""

    name: Literal["tensor_decomposition"] = Field(description="reference landscape")
    n: int = Field(default=6, ge=2, le=4096, description="dimension")
    order: int = Field(default=6, ge=4, le=20, multiple_of=2, description="of the tensor: even, ≥ 4")
    seed: Seed = Field(default=0, description="of the basis")


class SphericalSpin(Section):
    """The spherical p-spin glass: p = 2 in closed form, p = 3 enumerated for n ≤ 4."""

    name: Literal["spherical_spin"] = Field(description="reference landscape")
    p: Literal[2, 3] = Field(default=2, description="spins that interact")
    n: int = Field(default=10, ge=2, le=4096, description="spins; at most 4 for p = 3")
    seed: Seed = Field(default=0, description="of the couplings")


class RandomField(Section):
    """A confined sum of random plane waves whose stationary points are enumerated."""

    name: Literal["random_field"] = Field(description="reference landscape")
    n: int = Field(default=2, ge=1, le=4, description="dimension")
    waves: Size = Field(default=32, description="plane waves")
    confinement: Positive = Field(default=0.25, description="c of c/2·‖θ‖²")
    seed: Seed = Field(default=0, description="of the waves")


class StudentTeacher(Section):
    """Two-layer ReLU students of an orthonormal teacher, population loss (Safran & Shamir 2018)."""

    name: Literal["student_teacher"] = Field(description="reference landscape")
    students: Size = Field(default=6, description="hidden units of the student")
    teachers: Size = Field(default=6, description="hidden units of the teacher, and inputs")


class Himmelblau(Section):
    """(x² + y − 11)² + (x + y² − 7)²."""

    name: Literal["himmelblau"] = Field(description="reference landscape")


class SixHumpCamel(Section):
    """The six-hump camel function."""

    name: Literal["six_hump_camel"] = Field(description="reference landscape")


class MullerBrown(Section):
    """The potential of Müller & Brown 1979."""

    name: Literal["muller_brown"] = Field(description="reference landscape")


class MonkeySaddle(Section):
    """x³ − 3xy²: a degenerate saddle."""

    name: Literal["monkey_saddle"] = Field(description="reference landscape")


class QuarticBowl(Section):
    """A quartic degenerate minimum."""

    name: Literal["quartic_bowl"] = Field(description="reference landscape")
    dim: Size = Field(default=3, description="dimension")


class GradientFlatTrap(Section):
    """A local minimum of ‖∇L‖ that is no critical point (Frye et al. 2021)."""

    name: Literal["gradient_flat_trap"] = Field(description="reference landscape")
    share: float = Field(default=0.5, ge=0, le=1, description="of the starts near the trap")


REFERENCES: dict[str, type[Section]] = {
    "linear_autoencoder": LinearAutoencoder,
    "matrix_factorisation": MatrixFactorisation,
    "deep_factorisation": DeepFactorisation,
    "phase_retrieval": PhaseRetrieval,
    "ica": Ica,
    "tensor_decomposition": TensorDecomposition,
    "spherical_spin": SphericalSpin,
    "random_field": RandomField,
    "student_teacher": StudentTeacher,
    "himmelblau": Himmelblau,
    "six_hump_camel": SixHumpCamel,
    "muller_brown": MullerBrown,
    "monkey_saddle": MonkeySaddle,
    "quartic_bowl": QuarticBowl,
    "gradient_flat_trap": GradientFlatTrap,
}
