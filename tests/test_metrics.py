"""The numbers of a sweep as Prometheus finds them on a real Ray cluster."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

from tests.ray_cluster import ROOT, ray_cluster

SECONDS = 90  # that a cluster under load may take until a gauge is seen
DRIVER = """
import sys
from landsweep.cluster import ray_adapter
from landsweep.cluster.status import Facts, Mark, Work, status
ray_adapter.connect(sys.argv[1], 0)
facts = Facts("toy", "running", 8, 4, {"ValueError": 2}, 3600.0, 1.5, 1, 3, 1000.0, [Mark(1000.0, 0), Mark(1008.0, 4)],
              {"a-node": Work(4, 8.0)})
ray_adapter.exporter("toy")(status(facts, 1008.0).samples())
print("told", flush=True)
sys.stdin.read()
"""
EXPECTED = {
    ("total", ""): 8,
    ("done", ""): 4,
    ("failed", ""): 2,
    ("running", ""): 3,
    ("retried", ""): 1,
    ("cost", ""): 1.5,
    ("trials_per_second", ""): 0.5,
    ("eta_seconds", ""): 8,
    ("failures", "ValueError"): 2,
    ("node_trials_per_second", "a-node"): 0.5,
}
LINE = re.compile(r"^ray_landsweep_(\w+)\{(.*)\} (\S+)$", re.MULTILINE)


def scraped(folder: Path) -> dict[tuple[str, str], float]:
    """(name, class or node) → value, from every endpoint that Ray lists for Prometheus."""
    listing = folder / "prom_metrics_service_discovery.json"
    targets = [target for group in json.loads(listing.read_text()) for target in group["targets"]]
    found = {}
    for target in targets:
        try:
            with urllib.request.urlopen(f"http://{target}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            continue
        for name, labels, value in LINE.findall(text):
            if 'sweep="toy"' in labels:
                label = re.search(r'(?:class|node)="([^"]*)"', labels)
                found[name, label[1] if label else ""] = float(value)
    return found


def test_prometheus_finds_the_numbers_of_a_sweep() -> None:
    with ray_cluster(1, {"RAY_metrics_report_interval_ms": "500"}) as cluster:
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, cluster.gcs],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**cluster.environment, "RAY_metrics_report_interval_ms": "500"},
        )
        assert driver.stdin
        assert driver.stdout
        try:
            assert driver.stdout.readline() == "told\n"
            deadline, found = time.monotonic() + SECONDS, {}
            while not found.keys() >= EXPECTED.keys() and time.monotonic() < deadline:
                threading.Event().wait(0.5)
                found = scraped(cluster.folder)
        finally:
            driver.stdin.close()
            driver.wait(60)
    assert {name: found.get(name) for name in EXPECTED} == EXPECTED
