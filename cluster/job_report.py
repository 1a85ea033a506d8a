"""What is said of a submitted job: Ray's word on its driver, and the store's on its trials."""

from __future__ import annotations

from typing import Any

from landsweep.cluster import failures, jobs, status
from landsweep.cluster.ray_adapter import JobRecord
from landsweep.cluster.store import SweepStore
from landsweep.workers.errors import LandsweepError

MOST_FAILED = 20  # trials that are named


def facts(job: JobRecord, now: float) -> dict[str, Any]:
    """A job as plain values. ``progress`` is null, with a ``note``, where this machine cannot read the store."""
    found: dict[str, Any] = {"id": job.id, "state": job.state, "exit_code": jobs.exit_code(job)}
    found |= {"sweep": job.metadata[jobs.SWEEP], "location": jobs.location(job), "started": job.started}
    found |= {"progress": None, "failed_trials": [], "note": _note(job)}
    try:
        store = SweepStore(jobs.location(job))
        if store.exists():
            found |= {"progress": status.current(store, now).as_dict(), "failed_trials": failed_trials(store)}
    except (LandsweepError, OSError) as exc:
        found["note"] = f"{found['note'] or ''} its store cannot be read from here: {exc}".strip()
    if found["failed_trials"]:
        found["note"] = None  # the log ends by naming them too
        found["exit_code"] = found["exit_code"] or int(job.ended)
    return found


def _note(job: JobRecord) -> str | None:
    """Why a driver failed, as far as Ray knows: the end of its log."""
    return job.message.splitlines()[-1][:500] if job.state == "FAILED" and job.message else None


def failed_trials(store: SweepStore) -> list[dict[str, str]]:
    """The trials of which every attempt failed, each with the last line of its last error; at most MOST_FAILED."""
    named = sorted(failures.given_up(store).items())[:MOST_FAILED]
    return [{"trial": trial, "error": ((row["error"] or "").strip().splitlines() or [""])[-1]} for trial, row in named]


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    result = [f"{found['id']}: {found['state']}", f"results: {found['location']}"]
    progress = found["progress"]
    if progress:
        result.append(_progress(progress))
    result += [f"failed: {one['trial']}: {one['error']}" for one in found["failed_trials"]]
    more = progress["failed"] - len(found["failed_trials"]) if progress else 0
    result += [f"  … {more} more"] if more > 0 else []
    return result + ([found["note"]] if found["note"] else [])


def _progress(found: dict[str, Any]) -> str:
    parts = [f"{found['done']}/{found['total']} trials, {found['failed']} failed"]
    if found["trials_per_second"]:
        parts.append(f"{found['trials_per_second']:.3g} a second")
    if found["eta_seconds"] is not None:
        parts.append(f"about {found['eta_seconds']:.0f} s left")
    if found["cost"] is not None:
        parts.append(f"cost so far {found['cost']:.2f}")
    parts += [f"{name} {count}" for name, count in sorted(found["failures"].items())]
    return ", ".join(parts)
