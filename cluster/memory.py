"""How much memory a batch takes at its peak, and how many trials fit a limit: predicted before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from landsweep.cluster.plan import MAX_BATCH, MAX_CHEAP_BATCH
from landsweep.workers.errors import LandscapeError
from landsweep.workers.record import canonical_json

if TYPE_CHECKING:
    from landsweep.workers.footprint import Footprint
    from landsweep.workers.samples import Samples

#: What a worker's first batch adds whatever it does: torch's transforms, compilers and BLAS buffers (101 … 112 MiB
#: measured of batches that hold next to nothing).
OVERHEAD = 105 * 2**20
#: What a process takes, over what its tensors hold: allocators keep blocks that were freed, the more the more sizes
#: there are (measured: 1.0 … 1.5 with whole Hessians, 1.6 … 2.0 by products).
_KEPT_DENSE, _KEPT_PRODUCTS = 1.25, 1.6
#: n×n matrices a row at the peak of each phase, with small Hessians (measured: 3.3, 5.1, 4.4, 5.4), and those alive
#: while the last chunk of Hessians is made.
_AT_START, _MINIMA, _SADDLES, _POINTS = (3.3, 2.0), (5.1, 2.0), (4.4, 2.0), (5.4, 3.0)
_LANCZOS_BLOCK, _TRACE_BLOCK = 4, 30  # vectors multiplied at once, for spectra and for the trace
_PROJECTED = 6  # k×k matrices a row beside a Lanczos basis of k vectors
_JACOBIANS = {"jacobian_norm", "parameter_jacobian_norm", "fisher_trace"}
#: What the trials of a batch of more than 64 may add, and how many of those there have to be.
CHEAP, BATCHES = 32 * 2**20, 64
#: The share of a limit that an automatic batch is predicted to take at most: predictions are up to 30 % too low.
SURE = 0.7
_ROW = 64  # bytes of a number in the lists that tables are made of


def footprint(settings: Mapping[str, Any], samples: Samples | None) -> Footprint:
    """The footprint of a ``landscape`` section, which is built for it; each is measured once."""
    import torch

    from landsweep.workers import builtin
    from landsweep.workers.footprint import measured

    key = canonical_json(settings), samples.checksum if samples else ""
    if key not in _footprints:
        landscape = builtin.build(settings, torch.device("cpu"), samples)
        try:
            _footprints[key] = measured(landscape)
        except (RuntimeError, ValueError, TypeError, IndexError) as exc:
            message = f"landscape.name: the gradient of {settings['name']!r} cannot be evaluated ({exc})"
            raise LandscapeError(
                f"{message}; write its loss so that torch.func.vmap and grad can transform it"
            ) from exc
    return _footprints[key]


_footprints: dict[tuple[str, str], Footprint] = {}


def relevant(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What of a configuration's settings :func:`batch_bytes` depends on: others with the same need no other look."""
    training, search = settings["training"], settings["search"]
    read = {key: training[key] for key in ("batch_size", "steps", "dtype")}
    curvature = {key: search[key] for key in ("minima", "saddles")}
    return {"landscape": settings["landscape"], "measure": settings["measure"], **curvature, **read}


def batch_bytes(settings: Mapping[str, Any], known: Footprint, trials: int) -> int:
    """The peak of a batch of so many ``trials``, in bytes above an idle worker.

    What is held throughout (data, snapshots) and the largest of what its phases add, one after the other: training,
    the trajectories' gradients, the curvature at the start, the searches, the classification of what they found.
    """
    from landsweep.workers.mode import is_dense

    snapshots: int = 2 * _snapshots(settings)  # with the steps that follow them
    held = OVERHEAD + _data(settings, known) + 8 * known.dim * trials * snapshots
    phases = (_training, _trajectories, _curvature, _measures)
    kept = _KEPT_DENSE if is_dense(settings, known.dim) else _KEPT_PRODUCTS
    return round(held + kept * max(phase(settings, known, trials) for phase in phases))


def _data(settings: Mapping[str, Any], known: Footprint) -> float:
    """Inputs and labels in float64, and once more in training's precision where that is another."""
    return known.data * (1.5 if settings["training"]["dtype"] == "float32" else 1.0)


def _training(settings: Mapping[str, Any], known: Footprint, trials: int) -> float:
    """Gradients on a minibatch, or on all samples, a chunk at a time; θ, the optimiser's state and sums of each row."""
    size = settings["training"]["batch_size"]
    samples: int = max(1, known.samples) if size == "full" else min(size, known.samples)
    at_once = min(trials * min(samples, known.chunk_samples), known.chunk_rows * known.chunk_samples)
    width = 0.5 if settings["training"]["dtype"] == "float32" else 1.0
    return width * (at_once * known.gradient + 8 * 8 * known.dim * trials)


def _snapshots(settings: Mapping[str, Any]) -> int:
    descent = settings["training"]
    return int(min(descent["snapshots"], descent["steps"] + 1))


def _trajectories(settings: Mapping[str, Any], known: Footprint, trials: int) -> float:
    """Gradients at all snapshots and their losses on the test set, a chunk at a time."""
    rows = trials * _snapshots(settings)
    a_row = max(known.chunk_samples * known.gradient, known.test_samples * known.value)
    return float(min(rows, known.chunk_rows) * a_row + 8 * 4 * known.dim * rows)


def _curvature(settings: Mapping[str, Any], known: Footprint, trials: int) -> float:
    """Start, searches and points, by whole Hessians or by products."""
    from landsweep.workers.execution import MINIMUM_ROWS
    from landsweep.workers.mode import is_dense, looks_everywhere

    saddles, searched = settings["search"]["saddles"], 0
    if not looks_everywhere(settings):
        trials = min(trials, MINIMUM_ROWS)
    if saddles is not None:
        limit = saddles["trials"]
        searched = saddles["per_trial"] * (trials if limit == "all" else min(trials, int(limit)))
    points: int = trials + searched
    if not is_dense(settings, known.dim):
        return max(_products(settings, known, rows) for rows in (trials, searched, points))
    phases = ((trials, _AT_START), (trials, _MINIMA), (searched, _SADDLES), (points, _POINTS))
    return max(_matrices(known, rows, *held) for rows, held in phases) + _ROW * known.dim * points


def _measures(settings: Mapping[str, Any], known: Footprint, trials: int) -> float:
    """Jacobians fill a chunk."""
    from landsweep.workers.landscape import CHUNK_BYTES

    return float(CHUNK_BYTES) if _JACOBIANS & set(settings["measure"]["include"]) else 0.0


def _matrices(known: Footprint, rows: int, peak: float, held: float) -> float:
    """n×n matrices of ``rows`` rows: so many at the ``peak``, or those ``held`` while a chunk of Hessians is made."""
    matrices = 8 * known.dim**2 * rows
    chunk = min(max(rows, 2), known.hessian_rows) * known.hessian if rows else 0.0
    return max(peak * matrices, held * matrices + chunk)


def _products(settings: Mapping[str, Any], known: Footprint, rows: int) -> float:
    """A block of products beside the Lanczos basis of the rows that fit a chunk, or the larger block of the trace."""
    from landsweep.workers.landscape import CHUNK_BYTES

    vectors = min(_LANCZOS_BLOCK * settings["measure"]["lanczos_steps"], known.dim)
    basis = 8 * known.dim * vectors
    chunk = max(2, min(rows, CHUNK_BYTES // basis))
    spectrum = chunk * (basis + 8 * _PROJECTED * vectors**2) + _block(known, chunk, _LANCZOS_BLOCK)
    return float(max(spectrum, _block(known, chunk, _TRACE_BLOCK)) + 8 * 20 * known.dim * rows)


def _block(known: Footprint, rows: int, vectors: int) -> float:
    """Products of the Hessian with so many ``vectors`` in ``rows``, as many at once as ``Landscape.hvp`` takes."""
    columns = min(vectors, max(1, known.chunk_rows // 2))
    at_once = min(rows, max(2, known.chunk_rows // columns))
    return at_once * known.chunk_samples * (known.product + (columns - 1) * known.vector)


@dataclass(frozen=True)
class Allotment:
    """How trials are put into batches."""

    size: int  # trials a batch
    peak: int | None = None  # bytes of the largest batch of all configurations, predicted; None: not looked at
    notes: tuple[str, ...] = ()  # what to know about it


def allotted(
    predictions: Sequence[Callable[[int], int]], requested: Literal["auto"] | int, limit: int, seeds: int, total: int
) -> Allotment:
    """The trials of one batch: ``requested``, or the largest power of two ≤ 64 of which all ``predictions`` (trials to
    bytes) are within ``SURE`` times ``limit``, at least 1; there are ``seeds`` trials of a configuration, ``total`` in
    all.

    A batch whose trials add next to nothing (CHEAP bytes) costs what its first trial costs: it may grow to 1024, as
    long as BATCHES such batches are left for the workers to share.

    >>> allotted([lambda trials: 100 * trials], "auto", 1200, 200, 200)
    Allotment(size=8, peak=800, notes=())
    >>> allotted([lambda trials: 100 * trials], "auto", 10**6, 10**5, 10**5).size
    1024
    """
    size = MAX_CHEAP_BATCH if requested == "auto" else requested
    while requested == "auto" and size > 1 and not all(_fits(one, size, SURE * limit, total) for one in predictions):
        size //= 2
    largest = min(size, seeds)
    peak = max(predicted(largest) for predicted in predictions)
    return Allotment(size, peak, () if peak <= limit else (_too_large(largest, peak, limit),))


def fewest_batches(requested: Literal["auto"] | int, seeds: int, configurations: int) -> int:
    """How many batches a sweep has at least, whatever memory they are predicted to take.

    >>> fewest_batches("auto", 200, 1), fewest_batches(10, 200, 2)
    (4, 40)
    """
    count = configurations * -(-seeds // (MAX_BATCH if requested == "auto" else requested))
    return min(count, BATCHES) if requested == "auto" else count


def _fits(predicted: Callable[[int], int], size: int, limit: float, total: int) -> bool:
    if size <= MAX_BATCH:
        return predicted(size) <= limit
    return size * BATCHES <= total and predicted(size) <= min(limit, predicted(1) + CHEAP)


def _too_large(trials: int, peak: int, limit: int) -> str:
    found = f"a batch of {trials} is predicted to take {peak / 2**20:,.0f} MiB, and resources.memory is "
    mend = "lower resources.batch, or set it to auto" if trials > 1 else "use fewer parameters or less data"
    return f"{found}{limit / 2**20:,.0f} MiB: {mend}, or raise the limit; a batch that runs out is halved and run again"


def exhausted(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out: on the host, in torch's allocators, or by Ray's monitor.

    >>> exhausted(MemoryError()), exhausted(RuntimeError("shapes do not match"))
    (True, False)
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return any(sign in text for sign in ("allocate memory", "out of memory", "bad_alloc", "low on memory"))
