"""What was asked before the first result, and every look at a growing sweep: both bear on what a verdict may claim."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from landsweep.analysis.verdict import VerdictOptions
from landsweep.cluster.store import QUESTION_FILE, SweepStore
from landsweep.workers.errors import StoreError
from landsweep.workers.record import canonical_json

LOOKS_FILE = "verdict/looks.json"
_ENTRY = {"question", "trials", "fraction", "spent_before", "spent_after"}


@dataclass(frozen=True)
class Registered:
    """The question as it stood before the first committed result."""

    options: Mapping[str, Any]  # of VerdictOptions
    planned: int | None  # trials of the sweep file; None where it is not known

    @staticmethod
    def read(store: SweepStore) -> Registered:
        """What the store holds; defaults where nothing was registered."""
        text = store.text(QUESTION_FILE)
        if text is None:
            return Registered({}, None)
        content = store.json(QUESTION_FILE, text)
        try:
            return Registered({**content["options"]}, int(content["planned"]))
        except (KeyError, TypeError, ValueError) as exc:
            raise _damaged(store, QUESTION_FILE) from exc


@dataclass(frozen=True)
class Looks:
    """The looks so far, in order."""

    entries: tuple[Mapping[str, Any], ...]

    @staticmethod
    def read(store: SweepStore) -> Looks:
        """Those that the store holds."""
        text = store.text(LOOKS_FILE)
        entries = store.json(LOOKS_FILE, text) if text else []
        if not isinstance(entries, list) or not all(isinstance(e, dict) and e.keys() >= _ENTRY for e in entries):
            raise _damaged(store, LOOKS_FILE)
        return Looks(tuple(entries))

    def before(self, options: VerdictOptions, trials: int, planned: int | None) -> tuple[float, float]:
        """(alpha spent before this look, its share of the planned trials). A second look at the same trials is none."""
        mine = [entry for entry in self.entries if entry["question"] == _question(options)]
        for entry in mine:
            if entry["trials"] == trials:
                return float(entry["spent_before"]), float(entry["fraction"])
        fraction = 1.0 if not planned or trials >= planned else max(trials, 1) / planned
        return (float(mine[-1]["spent_after"]) if mine else 0.0), fraction

    def add(
        self, store: SweepStore, options: VerdictOptions, trials: int, before: float, fraction: float, after: float
    ) -> None:
        """Write this look down, unless it is there already."""
        question = _question(options)
        if any(e["question"] == question and e["trials"] == trials for e in self.entries):
            return
        spent = {"spent_before": before, "spent_after": after}
        entry = {"question": question, "trials": trials, "fraction": fraction, **spent}
        store.files.write(LOOKS_FILE, canonical_json([*self.entries, entry]).encode())


def _damaged(store: SweepStore, name: str) -> StoreError:
    return StoreError(f"{store.uri}/{name} is not what a verdict leaves there; it was damaged: restore it from a copy")


def _question(options: VerdictOptions) -> str:
    return canonical_json(dataclasses.asdict(options))
