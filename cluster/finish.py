"""The end of a run: verdict and report into the store, and with the tables to MLflow; each once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from landsweep.cluster import follow, tracking
from landsweep.cluster.prepare import Plan
from landsweep.cluster.store import SWEEP_FILE
from landsweep.cluster.tracked import FEW_CONFIGURATIONS
from landsweep.cluster.tracker import Tracker
from landsweep.workers import record

VERDICT, SUMMARY, REPORT = "verdict/verdict.json", "verdict/summary.txt", "report.html"
STATE = "verdict/state.json"


def tracker(planned: Plan) -> Tracker | None:
    """Who logs the sweep; None where tracking is off."""
    uri = planned.sweep.tracking.uri or tracking.default_uri(planned.sweep.store)
    return None if uri == tracking.OFF else Tracker(planned, uri)


class Conclusion:
    """What follows the last batch of a sweep."""

    def __init__(self, planned: Plan) -> None:
        self._planned = planned
        self._store = planned.store

    @property
    def report_path(self) -> str:
        return f"{self._store.uri}/{REPORT}"

    @property
    def wants_figures(self) -> bool:
        """Whether configurations are few enough for artifacts of each."""
        return len(self._planned.configurations) <= FEW_CONFIGURATIONS

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

    def track(self, tracker: Tracker | None, artifacts: Path) -> str | None:
        """Have what is not yet logged sent, with the files of configurations in ``artifacts``, a folder each.

        Why it was not, if so; the next run sends what is missing.
        """
        if tracker is not None:
            names = {"sweep.yaml": SWEEP_FILE, follow.VERDICT: VERDICT, "report.html": REPORT}
            own = artifacts / follow.SWEEP_FOLDER
            own.mkdir()
            for name, file in names.items():
                (own / name).write_bytes((self._store.text(file) or "").encode())
            if failure := tracker.finish(artifacts):
                return failure
        self._store.files.write(STATE, self._state().encode())
        return None

    def _state(self) -> str:
        """What verdict, report and tracking follow from."""
        sweep = self._planned.sweep
        claims = [claim.number for claim in self._store.snapshot().claims]
        options = sweep.verdict.model_dump(mode="json")
        uri = sweep.tracking.uri or tracking.default_uri(sweep.store)
        return record.content_hash([claims, options, uri, sweep.tracking.trials, record.VERSION])
