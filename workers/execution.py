"""The execution mode: what, beside configuration and seed, a result's last bits depend on.

Import this module before any tensor work: it makes MKL's kernels independent of memory alignment
(``MKL_CBWR=AUTO``; without it the third row of a stack of odd-sized matrices takes another path than the first, and
a trial's last bits depend on its place in the batch).
"""

from __future__ import annotations

import os

os.environ.setdefault("MKL_CBWR", "AUTO")

import torch  # (MKL reads MKL_CBWR when torch loads it)

#: Batches are padded to at least this many rows: with one row, batched matrix products take another kernel.
MINIMUM_ROWS = 2


def prepare(threads: int = 1) -> torch.device:
    """Set the threads, keep reduced-precision matrix modes off, and return the device to work on."""
    torch.set_num_threads(max(1, threads))
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe(device: torch.device, dtype: str) -> str:
    """The mode as recorded in the column ``execution``: device kind, training dtype, compile, padding, BLAS mode."""
    blas = os.environ.get("MKL_CBWR", "default") if device.type == "cpu" else "cublas"
    return f"{device.type};{dtype};eager;rows>={MINIMUM_ROWS};{blas}"
