"""Whether points are found and measured with whole Hessians or from products with them alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from landsweep.workers.errors import LandscapeError
from landsweep.workers.execution import MINIMUM_ROWS

#: Largest n at which ``auto`` decomposes whole Hessians: eigh takes 10 s and 0.9 GB a point there on one core.
DENSE_LIMIT = 3000
MATRICES = 6  # n×n matrices a point at the peak: the Hessian, its parts, eigenvectors and LAPACK's workspace
DENSE_METHODS = ("eigenvector_following", "levenberg_marquardt")


def is_dense(settings: Mapping[str, Any], dim: int) -> bool:
    """Whether a configuration's points are measured with whole Hessians.

    A rule on the configuration alone, not on the machine: it decides what a trial's numbers are.
    """
    spectrum = settings["measure"]["spectrum"]
    return spectrum == "dense" or (spectrum != "lanczos" and dim <= DENSE_LIMIT)


def looks_everywhere(settings: Mapping[str, Any]) -> bool:
    """Whether curvature is looked at wherever training ends.

    Where nothing is searched or polished and nothing of curvature is asked for, only points whose gradient is small
    enough for a critical one need it: the kind of the others follows from the gradient.
    """
    search, measure = settings["search"], settings["measure"]
    asked = (measure["spectrum"] != "none", measure.get("include"), measure.get("trajectory"))
    return bool(search["minima"] or search["saddles"] is not None or any(asked))


def dense_bytes(dim: int) -> int:
    """Memory that whole Hessians take at the least, in bytes.

    >>> dense_bytes(20_000)
    38400000000
    """
    return 8 * MATRICES * MINIMUM_ROWS * dim**2


def check(settings: Mapping[str, Any], dim: int, available: int) -> str | None:
    """Refuse what cannot work at this size, before anything is allocated; otherwise what to know about it, or None.

    Raises LandscapeError where dense Hessians do not fit ``available`` bytes, or a search that keeps them, or a measure
    of their eigenvectors, is asked for without them.
    """
    spectrum, saddles = settings["measure"]["spectrum"], settings["search"]["saddles"]
    needed = f"whole Hessians of n = {dim:,} parameters take {dense_bytes(dim) / 1e9:.1f} GB"
    if is_dense(settings, dim):
        if dense_bytes(dim) > available:
            message = f"measure.spectrum: {needed}, and {available / 1e9:.1f} GB are there"
            raise LandscapeError(f"{message}; allowed: auto or lanczos, which take products with the Hessian only")
        return None
    if dim == 1:
        message = "measure.spectrum: lanczos takes both ends of a spectrum, and there is one parameter"
        raise LandscapeError(f"{message}; allowed: auto or dense")
    if saddles is not None and saddles["method"] in DENSE_METHODS:
        message = f"search.saddles.method: {saddles['method']} keeps whole Hessians, and spectra are by Lanczos here"
        raise LandscapeError(f"{message}; allowed: auto, saddle_dynamics, newton_mr or gradient_norm")
    if saddles is not None and saddles["connections"] is True:
        message = "search.saddles.connections: true needs whole Hessians, and spectra are by Lanczos here"
        raise LandscapeError(f"{message}; allowed: auto or false")
    for section, asked in (("include", "escape_time"), ("trajectory", "alignment")):
        if asked in settings["measure"][section]:
            message = f"measure.{section}: {asked} needs eigenvectors, and spectra are by Lanczos here"
            raise LandscapeError(f"{message}; leave it out, or take spectrum: dense where memory allows")
    if spectrum == "lanczos":
        return None
    return f"n = {dim:,} is above {DENSE_LIMIT:,} ({needed}): spectra by Lanczos, signs where their bounds decide"


def available_bytes() -> int:
    """Physical memory of this machine, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
