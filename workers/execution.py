"""The execution mode: what, beside configuration and seed, a result's last bits depend on.

Import this module before any tensor work: it makes MKL's kernels independent of memory alignment
(``MKL_CBWR=AUTO``; without it the third row of a stack of odd-sized matrices takes another path than the first, and
a trial's last bits depend on its place in the batch).
"""

from __future__ import annotations

import os

os.environ.setdefault("MKL_CBWR", "AUTO")

import torch  # (MKL reads MKL_CBWR when torch loads it)

from landsweep.workers import compiled
from landsweep.workers.errors import DependencyError

#: Batches are padded to at least this many rows: with one row, batched matrix products take another kernel.
MINIMUM_ROWS = 2


def prepare(threads: int = 1, gpu: bool = False) -> torch.device:
    """Set the threads, keep reduced-precision matrix modes off, and return the device to work on.

    Raises DependencyError where a GPU is asked for and torch finds none.
    """
    if gpu and not torch.cuda.is_available():
        raise DependencyError(
            "resources.num_gpus: torch finds no CUDA device on this worker; set 0, or mend its driver"
        )
    torch.set_num_threads(max(1, threads))
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda" if gpu else "cpu")


def describe(device: torch.device, dtype: str) -> str:
    """The mode as recorded in the column ``execution``: device kind, training dtype, compile, padding, BLAS mode."""
    program = "compiled" if device.type == "cpu" and compiled.library("dense") else "eager"
    blas = os.environ.get("MKL_CBWR", "default") if device.type == "cpu" else "cublas"
    return f"{device.type};{dtype};{program};rows>={MINIMUM_ROWS};{blas}"
