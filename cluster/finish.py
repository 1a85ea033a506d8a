"""The end of a run: verdict and report into the store, the tree of runs to MLflow; each once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from landsweep.cluster import tracking
from landsweep.cluster.prepare import Plan
from landsweep.cluster.store import SWEEP_FILE
from landsweep.cluster.tracked import run_tree
from landsweep.workers import record

VERDICT, SUMMARY, REPORT = "verdict/verdict.json", "verdict/summary.txt", "report.html"
STATE = "verdict/state.json"
OFF = "none"


class Conclusion:
    """What follows the last batch of a sweep."""

    def __init__(self, planned: Plan) -> None:
        self._planned = planned
        self._store = planned.store
        sweep = planned.sweep
        self._uri = sweep.tracking.uri or tracking.default_uri(sweep.store)

    @property
    def report_path(self) -> str:
        return f"{self._store.uri}/{REPORT}"

    def known_summary(self) -> str | None:
        """The stored verdict's summary, where verdict, report and tracking are those of the present tables."""
        if self._store.text(STATE) != self._state():
            return None
        return self._store.text(SUMMARY)

    def store(self, verdict: Mapping[str, Any], summary: str, report: bytes) -> None:
        """Keep verdict and report beside the tables."""
        self._store.files.write(VERDICT, record.canonical_json(verdict).encode())
        self._store.files.write(SUMMARY, summary.encode())
        self._store.files.write(REPORT, report)

    def track(
        self,
        points: pd.DataFrame,
        trials: pd.DataFrame,
        verdict: Mapping[str, Any],
        report: bytes,
        figures: Mapping[str, Mapping[str, bytes]],
    ) -> str | None:
        """Send everything to MLflow; why it was not, if so. The next run sends what is missing."""
        sweep = self._planned.sweep
        if self._uri != OFF:
            artifacts = {
                "sweep.yaml": (self._store.text(SWEEP_FILE) or "").encode(),
                "verdict.json": record.canonical_json(verdict).encode(),
                "report.html": report,
            }
            runs = run_tree(self._planned, points, trials, verdict, artifacts, figures)
            try:
                tracking.send(self._uri, sweep.name, sweep.store, runs)
            except tracking.TrackingError as error:
                return str(error)
        self._store.files.write(STATE, self._state().encode())
        return None

    def _state(self) -> str:
        """What verdict, report and tracking follow from."""
        sweep = self._planned.sweep
        claims = [claim.number for claim in self._store.snapshot().claims]
        options = sweep.verdict.model_dump(mode="json")
        return record.content_hash([claims, options, self._uri, sweep.tracking.trials, record.VERSION])
