"""The reference landscapes by name."""

from __future__ import annotations

from collections.abc import Callable

from landsweep.workers.landscape import Landscape
from landsweep.workers.reference import degenerate, plane, population
from landsweep.workers.reference.autoencoder import linear_autoencoder
from landsweep.workers.reference.deep_linear import deep_linear
from landsweep.workers.reference.factorisation import matrix_factorisation
from landsweep.workers.reference.random_field import random_field
from landsweep.workers.reference.spin_glass import spherical_spin
from landsweep.workers.reference.student_teacher import student_teacher

REFERENCES: dict[str, Callable[..., Landscape]] = {
    "linear_autoencoder": linear_autoencoder,
    "matrix_factorisation": matrix_factorisation,
    "deep_factorisation": deep_linear,
    "phase_retrieval": population.phase_retrieval,
    "ica": population.ica,
    "tensor_decomposition": population.tensor_decomposition,
    "spherical_spin": spherical_spin,
    "random_field": random_field,
    "student_teacher": student_teacher,
    "himmelblau": plane.himmelblau,
    "six_hump_camel": plane.six_hump_camel,
    "muller_brown": plane.muller_brown,
    "monkey_saddle": degenerate.monkey_saddle,
    "quartic_bowl": degenerate.quartic_bowl,
    "gradient_flat_trap": degenerate.gradient_flat_trap,
}
