"""What is known in closed form of a fully connected net, as :func:`supervised_landscape` takes it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from landsweep.workers import dense_native
from landsweep.workers.architecture import Architecture
from landsweep.workers.dense_gradient import dense_gradient, dense_value_and_gradient
from landsweep.workers.dense_products import dense_products


def closed_forms(network: Architecture) -> dict[str, Callable[..., Any]]:
    """Gradients and steps of descent on minibatches; value and gradient, products with the Hessian, losses and errors
    on all samples."""
    forms: dict[str, Callable[..., Any]] = {
        "gradient": dense_gradient,
        "descent": dense_native.descent,
        "value_and_gradient": dense_value_and_gradient,
        "products": dense_products,
        "judged": dense_native.judged,
    }
    return {name: functools.partial(form, network) for name, form in forms.items()}
