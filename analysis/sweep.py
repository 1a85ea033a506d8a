"""A sweep's results: committed tables as pandas, the verdict and the report on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.dataset

from landsweep.analysis import query
from landsweep.analysis.classes import Fingerprints, class_codes
from landsweep.analysis.groups import landscape_keys, latest_attempts
from landsweep.analysis.looks import Looks, Registered
from landsweep.analysis.reading import read_for_verdict
from landsweep.analysis.verdict import Verdict, VerdictOptions, verdict
from landsweep.cluster.store import SWEEP_FILE, SweepStore
from landsweep.workers import record
from landsweep.workers.errors import QueryError, StoreError

if TYPE_CHECKING:
    from landsweep.analysis.algorithms import Algorithms
    from landsweep.analysis.comparison import Comparison
    from landsweep.analysis.counting import Counting
    from landsweep.analysis.features import Features
    from landsweep.analysis.random_matrix import Concentration, IndexLaw
    from landsweep.analysis.topology import Disconnectivity, MorseAudit


def open(uri: str | Path) -> Sweep:
    """The sweep at ``<store>/<name>``, running or ended; only what is committed is seen. Raises StoreError."""
    store = SweepStore(uri)
    if not store.exists():
        message = f"{store.uri}: no sweep there (neither {SWEEP_FILE} nor log/); name <store>/<name>"
        raise StoreError(f"{message}, see `landsweep list`")
    return Sweep(store)


class Sweep:
    """Reads ``<store>/<name>``; every call sees what is committed when it is made."""

    def __init__(self, store: SweepStore) -> None:
        self._store = store
        self.uri = store.uri
        self.name = store.name

    def __repr__(self) -> str:
        return f"Sweep({self.uri!r})"

    def points(
        self, columns: Sequence[str] | None = None, where: str | None = None, kind: str | Sequence[str] | None = None
    ) -> pd.DataFrame:
        """The points: ``columns`` of them (all, and ``class_id``), those of ``where`` and of ``kind``.

        ``class_id`` is assigned over the whole sweep, whatever part of it is asked for. Raises QueryError.
        """
        data = self._store.dataset("points")
        wanted = None if columns is None else list(columns)
        classed = wanted is None or "class_id" in wanted
        plain = data.schema.names if wanted is None else [column for column in wanted if column != "class_id"]
        query.check_columns(plain, data.schema)
        expression = self._filter(where, kind, data.schema)
        needed = list(dict.fromkeys([*plain, "config", "seed", *(["point"] if classed else [])]))
        frame = _ordered(self._store.tables.read(data, needed, expression))
        if classed:
            frame["class_id"] = self._classes(data, frame["point"])
        return frame if wanted is None else frame[wanted]

    def scan(
        self, columns: Sequence[str] | None = None, where: str | None = None, kind: str | Sequence[str] | None = None
    ) -> pyarrow.dataset.Scanner:
        """The same points without ``class_id``, as a pyarrow Scanner for what does not fit memory: read it in batches.

        Rows come in the order of the files, not by configuration and seed. Raises QueryError.

        ``for batch in sweep.scan(["objective"], where="seed < 10").to_batches(): …``
        """
        data = self._store.dataset("points")
        plain = None if columns is None else query.check_columns(columns, data.schema)
        return data.scanner(columns=plain, filter=self._filter(where, kind, data.schema))

    def trials(self) -> pd.DataFrame:
        """The trials, of one that was tried again its highest attempt."""
        return latest_attempts(_ordered(self._store.table("trials")))

    def trajectories(self) -> pd.DataFrame:
        """The trajectories' snapshots."""
        return _ordered(self._store.table("trajectories"))

    def connections(self) -> pd.DataFrame:
        """The minima that saddles join."""
        frame: pd.DataFrame = self._store.table("connections").to_pandas()
        return frame

    def spectra(self) -> pd.DataFrame:
        """Full spectra, one row a point."""
        return _ordered(self._store.table("spectra"))

    def parameters(self, point: str) -> dict[str, np.ndarray]:
        """``{"theta": θ (n,), "initial": θ₀ (n,), "trained": (n,)}`` of a point, by its id. Raises QueryError."""
        columns = ["batch", "seed", "config", "parameters_row"]
        rows = self._store.table("points", columns, pa.compute.field("point") == point)
        if rows.num_rows == 0:
            raise QueryError(f"{self.uri} has no point {point!r}; ids are in the column 'point'")
        row = rows.to_pylist()[0]
        if row["parameters_row"] is None:
            raise QueryError(f"point {point!r} has no parameters: its training diverged")
        tensors = self._store.parameters(row["batch"])
        done = (pa.compute.field("batch") == row["batch"]) & (pa.compute.field("status") == "done")
        batch = self._store.table("trials", ["seed"], done)
        place = sorted(batch["seed"].to_pylist()).index(row["seed"])
        ends = {name: tensors[name][place] for name in ("initial", "trained") if len(tensors[name]) == batch.num_rows}
        return {"theta": tensors["points"][row["parameters_row"]], **ends}

    def text(self) -> str:
        """The sweep file as run."""
        return self._store.text(SWEEP_FILE) or ""

    def verdict(self, record_look: bool = True, **options: Any) -> Verdict:
        """Do local minima generalise like global ones? ``options`` (of VerdictOptions) replace those registered.

        The first look at all planned trials spends the whole alpha; looks before spend part of it, looks after, and
        other options than those registered before the first result, make the verdict exploratory.
        """
        registered = Registered.read(self._store)
        chosen = VerdictOptions(**{**registered.options, **options})
        points, trials = read_for_verdict(self._store, chosen.metric)
        looks = Looks.read(self._store)
        spent, fraction = looks.before(chosen, len(trials), registered.planned)
        answer = verdict(
            points,
            chosen,
            trials=trials,
            exploratory=VerdictOptions(**registered.options) != chosen,
            alpha_spent=spent,
            information_fraction=fraction,
        )
        if record_look and len(trials):
            looks.add(self._store, chosen, len(trials), spent, fraction, float(answer.details["alpha_spent_after"]))
        return answer

    def classes(self) -> Counting:
        """How many distinct minima were met, and what can be said of those that were not."""
        from landsweep.analysis.counting import count_classes

        return count_classes(self.points(), self.trials())

    def algorithms(self) -> Algorithms:
        """Which optimiser reaches which minima, how often and at what cost."""
        from landsweep.analysis.algorithms import compare_algorithms

        return compare_algorithms(self.points(), self.trials())

    def compare(self, a: str, b: str, **options: Any) -> Comparison:
        """Two groups of points, each given as ``--where`` text, by the verdict's statistics."""
        from landsweep.analysis.comparison import compare

        return compare(self.points(), a, b, **options)

    def saddles_against_minima(self, **options: Any) -> Comparison:
        """Do saddles generalise like minima? ``match="train_loss"`` compares at the same training loss."""
        from landsweep.analysis.comparison import saddles_against_minima

        return saddles_against_minima(self.points(), **options)

    def sharp_against_flat(self, **options: Any) -> Comparison:
        """Do sharp minima generalise like flat ones?"""
        from landsweep.analysis.comparison import sharp_against_flat

        return sharp_against_flat(self.points(), **options)

    def features(self, target: str = "gap") -> Features:
        """Which measures predict ``target``."""
        from landsweep.analysis.features import features

        return features(self.points(), target)

    def sensitivity(self) -> pd.DataFrame:
        """The verdict at other bands and over other units."""
        from landsweep.analysis.sensitivity import sensitivity

        return sensitivity(self.points(), self._question(), trials=self.trials())

    def power(self, margins: Sequence[float] = (0.01, 0.02, 0.05)) -> pd.DataFrame:
        """How many trials each margin needs."""
        from landsweep.analysis.power import power_table

        return power_table(self.points(), margins, self._question(), trials=self.trials())

    def index_law(self) -> tuple[IndexLaw, ...]:
        """The index fraction against the excess objective, of each landscape."""
        from landsweep.analysis.random_matrix import index_law

        return index_law(self.points())

    def loss_concentration(self) -> Concentration:
        """The metric's spread over minima, and the correlation of training and test loss, by width."""
        from landsweep.analysis.random_matrix import loss_concentration

        return loss_concentration(self.points(), self.trials())

    def outliers(self, n_classes: int) -> pd.DataFrame:
        """How many eigenvalues of each spectrum lie above its bulk, against the number of classes of the data."""
        from landsweep.analysis.random_matrix import outliers

        return outliers(self.spectra(), n_classes)

    def morse_audit(self, **options: Any) -> tuple[MorseAudit, ...]:
        """Σ(−1)^index over the distinct points of each landscape against its Euler characteristic."""
        from landsweep.analysis.topology import morse_audit

        return morse_audit(self.points(), **options)

    def disconnectivity(self) -> Disconnectivity:
        """The tree of minima by the barriers between them, from the table ``connections``."""
        from landsweep.analysis.topology import disconnectivity

        return disconnectivity(self.connections(), self.points())

    def _question(self) -> VerdictOptions:
        return VerdictOptions(**Registered.read(self._store).options)

    def report(self, path: str | Path, verdict: Verdict | None = None, points: pd.DataFrame | None = None) -> Path:
        """Write the report, one self-contained HTML file; ``points`` are all of them, where they are read already."""
        from landsweep.analysis.report import write_report

        answer = verdict or self.verdict()
        return write_report(
            path,
            name=self.name,
            points=self.points() if points is None else points,
            trials=self.trials(),
            spectra=self.spectra(),
            verdict=answer,
            sweep_text=self.text(),
        )

    def _classes(self, data: pyarrow.dataset.Dataset, asked: pd.Series) -> pd.Series:
        """The class of each point in ``asked``."""
        grid = [name for name in data.schema.names if name.split(".")[0] == "landscape"]
        table = self._store.tables.read(data, ["point", "sweep", "config", "fingerprint", *grid], None)
        frame = table.drop_columns("fingerprint").to_pandas()
        prints = Fingerprints.of_arrow(table.column("fingerprint"))
        codes, names = class_codes(prints, landscape_keys(frame, None))
        rows = pd.Index(frame["point"].astype(object)).get_indexer(pd.Index(asked.astype(object)))
        return pd.Series(np.array([*names, None], dtype=object)[codes[rows]], index=asked.index, dtype="str")

    def _filter(self, where: str | None, kind: str | Sequence[str] | None, schema: pa.Schema) -> Any:
        expression = query.parse_where(where, schema) if where else None
        if kind is None:
            return expression
        kinds = [kind] if isinstance(kind, str) else list(kind)
        for one in kinds:
            if one not in record.KINDS:
                raise QueryError(f"--kind: found {one!r}; allowed are {', '.join(record.KINDS)}")
        of_kind = pa.compute.field("kind").isin(kinds)
        return of_kind if expression is None else expression & of_kind


def _ordered(table: pa.Table) -> pd.DataFrame:
    """By configuration and seed; a trial's points keep their order."""
    config = table.column("config").combine_chunks().dictionary_encode()
    rank = np.argsort(np.argsort(np.array(config.dictionary.to_pylist(), dtype=object), kind="stable"))
    codes = config.indices.to_numpy(zero_copy_only=False)
    order = np.lexsort((table.column("seed").to_numpy(), rank[codes] if len(rank) else codes))
    frame: pd.DataFrame = table.to_pandas()
    if bool((np.diff(order) == 1).all()):
        return frame
    return frame.take(order).reset_index(drop=True)
