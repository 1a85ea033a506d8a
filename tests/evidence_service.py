"""Sweeps as jobs of a real Ray cluster, a head and three raylets: ``python -m tests.evidence_service``."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import landsweep
from landsweep.cluster import run as runs
from landsweep.cluster import spec
from landsweep.cluster.executors import InlineExecutor
from landsweep.cluster.prepare import prepare
from landsweep.workers import execution
from tests.chaos.campaign import chaos
from tests.claims import Measured, measured_claims
from tests.comparison import largest_difference, points_of
from tests.ray_cluster import ray_cluster
from tests.submitted import Clients, marked, refusals, spoil, submit_stop_submit, write_sweep

TRIALS = 120
CULPRITS = {5: "killed", 17: "raised", 29: "memory", 30: "killed"}


@contextmanager
def _clients() -> Iterator[Clients]:
    with ray_cluster(3) as cluster, tempfile.TemporaryDirectory() as folder:
        yield Clients(cluster, Path(folder))


def submitted() -> Measured:
    """Submit, kill the client, follow from another, stop, submit again; the tables against those of a run alone."""
    with _clients() as clients:
        training = {"optimizer": "gd", "lr": 0.05, "steps": 1500}
        sweep = write_sweep(clients.folder, "wells", seeds=TRIALS, training=training, resources={"batch": 2})
        went = submit_stop_submit(clients, trials=10)
        trials = landsweep.open(clients.folder / "runs/wells").trials()
        alone = prepare(spec.validate({**sweep, "store": str(clients.folder / "alone")}, "sweep"))
        runs.run(alone, InlineExecutor, lambda progress: None)
        pair = [points_of(clients.folder / name / "wells") for name in ("alone", "runs")]
        difference, leaks = largest_difference(*pair), marked(clients)
    first, last = went.at_stop, went.at_end
    text = f"{first['id']}: {first['state']} with {first['progress']['done']} of {TRIALS} trials; "
    text += (
        f"{last['id']}: {last['state']} with {last['progress']['done']}, status exits {went.code}; attempts a trial "
    )
    text += f"{trials['attempt'].min()} … {trials['attempt'].max()}; largest difference to a run alone {difference:g}; "
    text += f"the token is found in {len(leaks)} outputs or files"
    states = (first["state"], last["state"]) == ("SUCCEEDED", "SUCCEEDED")
    counts = 10 <= first["progress"]["done"] < TRIALS == last["progress"]["done"] == len(trials)
    others = difference == 0 and not leaks and went.code == 0 and first["id"] != last["id"]
    return text, states and counts and others and "stopped as asked" in went.stop_log


def culprits() -> Measured:
    """Trials that kill their process, raise, exhaust memory: named, everything else done."""
    with _clients() as clients:
        sweep = write_sweep(clients.folder, "culprits", seeds=48, resources={"batch": 16, "retries": 2})
        spoil(sweep, CULPRITS)
        clients.run("submit", "sweep.yaml")
        clients.run("logs", "--follow", seconds=1200)
        ended = clients.run("status", "--json")
        trials = landsweep.open(clients.folder / "runs/culprits").trials()
    found = json.loads(ended.stdout)
    named = {int(one["trial"].rpartition("-")[2]): one["error"].partition(":")[0] for one in found["failed_trials"]}
    done = set(trials.loc[trials["status"] == "done", "seed"])
    text = f"{len(done)} of {48 - len(CULPRITS)} others done, failed {named}, status exits {ended.returncode}"
    whole = done == set(range(48)) - CULPRITS.keys() and not trials.duplicated(["trial", "attempt"]).any()
    return text, whole and named.keys() == CULPRITS.keys() and ended.returncode == 1


def jobs_api() -> Measured:
    """What the jobs API answers without the token."""
    with _clients() as clients:
        found = refusals(clients.cluster.dashboard)
    return ", ".join(f"{name}: {code}" for name, code in found.items()), set(found.values()) <= {401, 403}


CLAIMS: dict[str, tuple[str, Callable[[], Measured]]] = {
    "submitted": (
        "submitted from a client that is killed, followed from another, stopped, submitted again: the tables of an "
        "undisturbed run, to the bit; no output holds the token",
        submitted,
    ),
    "culprits": (
        "a trial that always kills its process, one that always raises, one that exhausts memory: the sweep finishes "
        "all else, they are named, exit 1",
        culprits,
    ),
    "chaos": (
        "50 sweeps, each through one to four faults of a seeded schedule (workers, nodes, drivers, the S3 server "
        "killed; requests broken; a full disk; no tracking server; a trial that raises) while processes read: the "
        "tables of an undisturbed run, to the bit; no read lacks or doubles what was committed; none hangs",
        chaos,
    ),
    "jobs_api": ("unauthenticated calls to the jobs API get 401 or 403", jobs_api),
}


if __name__ == "__main__":
    execution.prepare(1)
    sys.exit(measured_claims(CLAIMS, sys.argv[1:]))
