"""Every claim of the project measured in full: ``make evidence``, or ``python -m tests.evidence CLAIM …`` for some.

Works on a fresh clone of what is committed, in a fresh virtual environment, below a temporary folder; prints what is
claimed, what was measured, and whether it holds. Exit 1 if a claim does not hold.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from landsweep.workers.record import CRITICAL_KINDS
from tests import (
    disturbed,
    evidence_analysis,
    evidence_checks,
    evidence_classes,
    evidence_measures,
    evidence_modes,
    evidence_points,
    evidence_runs,
    evidence_scale,
    evidence_scaling,
    evidence_security,
    evidence_service,
    evidence_spectra,
    evidence_storage,
    evidence_tracking,
    evidence_training,
)
from tests.browser import faults
from tests.comparison import doubled, largest_difference, points_of
from tests.malformed import MALFORMED, content
from tests.processes import CHROMIUM, Ended, environment, free_port, mlflow_pages, serving, watched

ROOT = Path(__file__).resolve().parents[1]
GIB = 2**30


@dataclass(frozen=True)
class Claim:
    """What is claimed, and how it is measured: a function to (measured, holds)."""

    text: str
    measure: Callable[[Bench], tuple[str, bool]]


class Bench:
    """A fresh clone with its environment, and the digits sweep that ``make run`` makes there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def clone(self) -> Path:
        clone = self.folder / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        shutil.copytree(ROOT.parent / "shared", self.folder / "shared") if (ROOT.parent / "shared").is_dir() else None
        made = watched(["make", "venv"], clone)
        assert made.code == 0, made.output[-3000:]
        print(f"  (make venv: {made.seconds:.0f} s)", flush=True)
        return clone

    @cached_property
    def run(self) -> Ended:
        """``make run``."""
        return watched(["make", "run"], self.clone)

    @property
    def sweep(self) -> Path:
        assert self.run.code == 0, self.run.output[-3000:]
        return self.clone / "runs" / "digits"

    @property
    def landsweep(self) -> str:
        return str(self.clone / ".venv/bin/landsweep")

    def rerun(self, *arguments: str) -> Ended:
        """``landsweep run`` of the digits sweep once more."""
        assert self.sweep.is_dir()
        return watched([self.landsweep, "run", "infra/sweeps/digits.yaml", *arguments], self.clone)

    def pytest(self, *names: str) -> tuple[str, bool]:
        """The tests of these names in the clone."""
        ended = watched([str(self.clone / ".venv/bin/python"), "-m", "pytest", "-q", *names], self.clone, every=None)
        return ended.output.strip().splitlines()[-1].strip("= "), ended.code == 0


def make_run(bench: Bench) -> tuple[str, bool]:
    ended = bench.run
    holds = ended.code == 0 and ended.seconds <= 480 and ended.peak_bytes < 4 * GIB
    return f"exit {ended.code}, {ended.seconds:.0f} s, peak {ended.peak_bytes / GIB:.2f} GiB", holds


def found(bench: Bench) -> tuple[str, bool]:
    points = points_of(bench.sweep)
    saddles = points[points["kind"] == "saddle"]
    rows, holds = [], True
    for config, mine in points.groupby("config"):
        minima = int((mine["kind"] == "minimum").sum())
        indices = sorted({int(i) for i in saddles.loc[saddles["config"] == config, "index"]})
        holds = holds and minima > 0 and len(indices) > 1
        rows.append(f"{minima} minima, saddles of index {indices}")
    verdict = json.loads((bench.sweep / "verdict/verdict.json").read_text())
    return "; ".join(rows) + f"; verdict {verdict['verdict']}", holds and bool(verdict["verdict"])


def checkable(bench: Bench) -> tuple[str, bool]:
    """The verdict's estimate and its 90 % interval, computed once more from plain points in a few lines of pandas."""
    verdict = json.loads((bench.sweep / "verdict/verdict.json").read_text())
    estimate, variance = by_hand(points_of(bench.sweep), verdict["band"], verdict["metric"])
    gap = abs(estimate - verdict["estimate"])
    return f"by hand {estimate:.9f} ± {variance**0.5:.6f}, stored {verdict['estimate']:.9f}", gap < 1e-12


def by_hand(points: pd.DataFrame, band: object, metric: str) -> tuple[float, float]:
    """mean(local) − mean(global) and its variance: strata are configurations, weights n_l·n_g/(n_l+n_g)."""
    minima = points[(points["source"] == "training") & points["kind"].isin(["minimum", "degenerate_minimum"])].copy()
    best = minima.groupby("landscape.hidden")["objective"].transform("min")
    minima["group"] = (minima["objective"] - best <= (band if isinstance(band, float) else 0.01)).astype(int)
    numerator = denominator = spread = 0.0
    for _, rows in minima.groupby("config"):
        best_ones, local = rows.loc[rows["group"] == 1, metric], rows.loc[rows["group"] == 0, metric]
        if min(len(best_ones), len(local)) < 2:
            continue
        weight = len(best_ones) * len(local) / (len(best_ones) + len(local))
        numerator += weight * (local.mean() - best_ones.mean())
        spread += weight**2 * (local.var() / len(local) + best_ones.var() / len(best_ones))
        denominator += weight
    return numerator / denominator, spread / denominator**2


def make_test(bench: Bench) -> tuple[str, bool]:
    ended = watched(["make", "test"], bench.clone, every=None)
    last = ended.output.strip().splitlines()[-1].strip("= ")
    return f"exit {ended.code}, {ended.seconds:.0f} s: {last}", ended.code == 0 and ended.seconds <= 600


def make_bench(bench: Bench) -> tuple[str, bool]:
    ended = watched(["make", "bench"], bench.clone, every=None)
    said = [line.strip() for line in ended.output.splitlines() if line.endswith(("reached", "NOT REACHED"))]
    missed = [line for line in said if line.endswith("NOT REACHED")]
    return f"{len(said) - len(missed)} of {len(said)} reached; not: {missed}", bool(said) and ended.code == 0


def second_run(bench: Bench) -> tuple[str, bool]:
    ended = bench.rerun()
    line = ended.output.splitlines()[0]
    return f"exit {ended.code}, {ended.seconds:.1f} s: {line}", ended.seconds <= 15 and "no batch to run" in line


def more_seeds(bench: Bench) -> tuple[str, bool]:
    before = points_of(bench.sweep)
    runs = json.loads((bench.sweep / "verdict/verdict.json").read_text())["details"]
    ended = bench.rerun("--set", "seeds=74")
    after = points_of(bench.sweep)
    kept = after[after["point"].isin(before["point"])].reset_index(drop=True)
    new = set(after["trial"]) - set(before["trial"])
    line = ended.output.splitlines()[0]
    same = largest_difference(before, kept) == 0.0
    only = len(new) == 60 and {int(t.rpartition("-")[2]) for t in new} == set(range(64, 74)) and bool(runs)
    return f"{line}; {len(new)} new trials, the {len(before)} old points unchanged: {same}", only and same


def killed(bench: Bench) -> tuple[str, bool]:
    reference = points_of(bench.sweep)
    reference = reference[reference["seed"] < 64].sort_values("point", ignore_index=True)
    store = bench.clone / "runs-killed"
    command = [bench.landsweep, "run", "infra/sweeps/digits.yaml", "--store", str(store)]
    moments = [disturbed.staged, disturbed.claimed, disturbed.committed(2)]
    came, faults = disturbed.run_killed(command, bench.clone, store / "digits", moments)
    gap = largest_difference(reference, points_of(store / "digits"))
    twice = doubled(store / "digits")
    text = f"{len(came)} kills ({', '.join(came)}), largest difference {gap:.1e}, rows twice: {twice or 'none'}"
    text += f", what a reader complained of: {faults[:1] or 'nothing'}"
    return text, len(came) == 3 and gap <= 1e-9 and not twice and not faults


def columns(bench: Bench) -> tuple[str, bool]:
    found = pd.read_parquet(bench.sweep / "points").dtypes.astype(str).to_dict()
    text = (bench.clone / "docs/tables.md").read_text()
    documented = dict(
        re.findall(r"^\| `([\w.]+)` \| (\w+) \|", text.partition("## points")[2].partition("\n## ")[0], re.M)
    )
    wrong = {name for name in documented if found.get(name) != documented[name]}
    extra = set(found) - set(documented)
    grid = {"landscape.hidden", "training"}
    return f"{len(documented)} documented columns, {len(wrong)} of another type, beside them {sorted(extra)}", (
        len(documented) > 40 and not wrong and extra == grid
    )


def mlflow_ui(bench: Bench) -> tuple[str, bool]:
    if CHROMIUM is None:
        return "not measured: no chromium on this machine", False
    assert bench.sweep.is_dir()
    port = free_port()
    uri = f"sqlite:///{bench.clone}/runs/mlflow.db"
    python = str(bench.clone / ".venv/bin/python")
    command = [python, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--port", str(port)]
    image = ROOT / "evidence" / "mlflow.png"
    image.parent.mkdir(exist_ok=True)
    with serving(command, f"http://127.0.0.1:{port}/health", bench.folder):
        listing, page, name = mlflow_pages(f"http://127.0.0.1:{port}", image)
    count = re.search(r"(\d+)</strong> matching runs|>(\d+)<[^>]*> matching runs", listing)
    holds = ">digits<" in listing and name in page and "test_loss.mean" in page
    shown = count.group(0).replace("</strong>", "") if count else "its runs"
    return (
        f"headless Chromium shows {shown}, and {name!r} with its metrics; picture in {image.relative_to(ROOT)}",
        holds,
    )


def malformed(bench: Bench) -> tuple[str, bool]:
    folder = bench.folder / "malformed"
    folder.mkdir()
    bad = []
    for name, (text, key, mend) in MALFORMED.items():
        (folder / "file.yaml").write_bytes(content(text))
        ended = subprocess.run(
            [bench.landsweep, "run", "file.yaml"], cwd=folder, capture_output=True, text=True, env=environment()
        )
        clean = "Traceback" not in ended.stderr + ended.stdout and key in ended.stderr and mend in ended.stderr
        written = {path.name for path in folder.iterdir()} - {"file.yaml"}
        if ended.returncode != 2 or not clean or written:
            bad.append(name)
    return f"{len(MALFORMED)} files, not refused as claimed: {bad or 'none'}", len(MALFORMED) >= 20 and not bad


def module(name: str, *arguments: str) -> Callable[[Bench], tuple[str, bool]]:
    """A claim that a module of the tests measures, in the clone: the line that says what, and whether it exits 0."""

    def measure(bench: Bench) -> tuple[str, bool]:
        ended = watched([str(bench.clone / ".venv/bin/python"), "-m", name, *arguments], bench.clone, every=None)
        print(ended.output, flush=True)
        lines = ended.output.strip().splitlines()
        said = next((line for line in lines if "hold" in line.lower() and line.startswith("  ")), lines[0])
        return said.strip().removeprefix("holds: "), ended.code == 0

    return measure


def report_in_browser(bench: Bench) -> tuple[str, bool]:
    if CHROMIUM is None:
        return "not measured: no chromium on this machine", False
    found = faults(bench.sweep / "report.html")
    return f"at 1280 and 390 px, light and dark: {found or 'no request, no complaint, no overflow'}", not found


def notebook(bench: Bench) -> tuple[str, bool]:
    script = "import json\nnames = {}\nfor cell in json.load(open('docs/tour.ipynb'))['cells']:\n"
    script += "    if cell['cell_type'] == 'code': exec(''.join(cell['source']), names)\nprint('ran every cell')"
    assert bench.sweep.is_dir()
    ended = watched([str(bench.clone / ".venv/bin/python"), "-c", script], bench.clone)
    return ended.output.strip().splitlines()[-1], ended.code == 0


def claims_of(name: str, claims: Mapping[str, tuple[str, object]]) -> dict[str, Claim]:
    """The claims that a module of the tests measures, each by its name."""
    return {claim: Claim(text, module(name, claim)) for claim, (text, _) in claims.items()}


def tests_of(*arguments: str) -> Callable[[Bench], tuple[str, bool]]:
    """A claim that tests measure in full."""
    return lambda bench: bench.pytest(*arguments)


def trained_points(bench: Bench) -> tuple[str, bool]:
    """Where the digits sweep's training, polished, ends: tanh, weight decay."""
    points = points_of(bench.sweep)
    trained = points[points["source"] == "training"]
    critical = trained["kind"].isin(CRITICAL_KINDS)
    unsaid = int(trained.loc[~critical, "reason"].isna().sum())
    text = f"{int(critical.sum())} of {len(trained)} at critical points ({dict(trained['kind'].value_counts())})"
    return f"{text}; {unsaid} of the others without a reason", critical.mean() >= 0.95 and unsaid == 0


def too_large(bench: Bench) -> tuple[str, bool]:
    """n = 20,035: dense spectra refused, auto routed to Lanczos, each with a message."""
    folder = bench.folder / "too_large"
    folder.mkdir()
    text = "name: big\nseeds: 2\nlandscape: {name: mlp, hidden: [267], train_size: 300}\n"
    text += "training: {optimizer: adam, lr: 0.01, steps: 30, batch_size: 64}\nsearch: {minima_iterations: 3}\n"
    (folder / "big.yaml").write_text(text + "measure: {lanczos_steps: 5}\nstore: runs\n")
    refused = watched([bench.landsweep, "run", "big.yaml", "--set", "measure.spectrum=dense"], folder)
    said = "whole Hessians of n = 20,035 parameters take 38.5 GB" in refused.output
    routed = watched([bench.landsweep, "run", "big.yaml"], folder)
    told = "spectra by Lanczos" in routed.output
    measured = f"dense: exit {refused.code} after {refused.seconds:.0f} s, peak {refused.peak_bytes / GIB:.2f} GiB; "
    measured += f"auto: exit {routed.code}, peak {routed.peak_bytes / GIB:.2f} GiB, said so: {said and told}"
    holds = refused.code == 2 and routed.code == 0 and said and told
    return measured, holds and max(refused.peak_bytes, routed.peak_bytes) < 4 * GIB


CLAIMS = {
    "run": Claim("`make run` exits 0 in ≤ 8 min after installation, peak < 4 GB in all its processes", make_run),
    "found": Claim("minima and saddles of several indices in every configuration, and a verdict", found),
    "checkable": Claim("the verdict's estimate follows from `points` by hand (1e-12)", checkable),
    "second": Claim("a second run runs no batch and says so in ≤ 15 s", second_run),
    "columns": Claim("pandas.read_parquet gives the documented columns and types", columns),
    "ui": Claim("`mlflow ui` shows the runs in headless Chromium", mlflow_ui),
    "malformed": Claim("≥ 20 malformed files: exit 2, one message with key and mend, nothing written", malformed),
    "killed": Claim("driver killed -9 at three moments, then run: points equal to 1e-9, none twice or partial", killed),
    "seeds": Claim("with `seeds` raised by 10 only the new trials run", more_seeds),
    "diverged": Claim(
        "lr 1e6 for one trial: kind=diverged, batch mates unchanged to the bit",
        tests_of("tests/test_training.py", "-k", "diverging"),
    ),
    "batches": Claim(
        "a seed alone, in batches of 4 and of 64: equal start, data order and points, to the bit",
        tests_of("tests/test_training.py", "-k", "alone"),
    ),
    "test": Claim("`make test` in ≤ 10 min", make_test),
    "report": Claim(
        "the report in Chromium: no request off the page, no console error, no overflow", report_in_browser
    ),
    "notebook": Claim("the notebook in the docs runs on the digits sweep", notebook),
    "published": Claim(
        "published worked examples of Chao1, Cliff's δ and I² reproduced",
        tests_of("tests/test_counting.py", "tests/test_effects.py", "-k", "published or hogarty or bcg"),
    ),
    "chao1": Claim(
        "Chao1's lower 95 % limit ≤ the truth in ≥ 95 % − 3 s.e. of draws at ≥ 10 seeds a class",
        module("tests.evidence_counting"),
    ),
    **{
        name: Claim(text, module("tests.evidence_analysis", name))
        for name, (text, _) in evidence_analysis.CLAIMS.items()
    },
    "trained": Claim(
        "digits, tanh, weight decay: ≥ 95 % of the trained points are critical, the rest say why", trained_points
    ),
    "too_large": Claim("dense spectra at n = 20,000 refused or routed to Lanczos, before allocation", too_large),
    "random": Claim(
        "random fields and cubic spins: enumerated, every point confirmed at 50 digits",
        tests_of("tests/test_reference_random.py"),
    ),
    "clauses": Claim(
        "each clause of the classification, and what certifies, has tests that fail without it",
        tests_of("tests/test_classify.py", "tests/test_reference_linear.py", "tests/test_reference_plane.py"),
    ),
    "connections": Claim(
        "saddles join the minima that an independent integrator finds; escape times follow ln(1/δ)/|λ|",
        tests_of("tests/test_connections.py", "tests/test_escape.py"),
    ),
    **claims_of("tests.evidence_points", evidence_points.CLAIMS),
    **claims_of("tests.evidence_spectra", evidence_spectra.CLAIMS),
    **claims_of("tests.evidence_classes", evidence_classes.CLAIMS),
    **claims_of("tests.evidence_training", evidence_training.CLAIMS),
    **claims_of("tests.evidence_modes", evidence_modes.CLAIMS),
    "bench": Claim("what `make bench` wants is reached; docs/performance.md names what is not", make_bench),
    **claims_of("tests.evidence_checks", evidence_checks.CLAIMS),
    **claims_of("tests.evidence_runs", evidence_runs.CLAIMS),
    **claims_of("tests.evidence_storage", evidence_storage.CLAIMS),
    "storage": Claim(
        "local and S3 files keep one contract, S3 also through a proxy that breaks requests; gc keeps what is named",
        tests_of("tests/test_files.py", "tests/test_garbage.py"),
    ),
    "hostile": Claim(
        "hostile names, links, entries of 1 GB, poisoned tables and parameters: one error; nothing is unpickled",
        tests_of("tests/test_hostile_store.py", "tests/test_layout.py", "-k", "not wheel and not install"),
    ),
    "full_disk": Claim(
        "a full disk: exit 1 with one message, nothing half-seen, the next run has the undisturbed points",
        tests_of("tests/test_full_disk.py"),
    ),
    **claims_of("tests.evidence_scale", evidence_scale.CLAIMS),
    **claims_of("tests.evidence_scaling", evidence_scaling.CLAIMS),
    **claims_of("tests.evidence_security", evidence_security.CLAIMS),
    **claims_of("tests.evidence_measures", evidence_measures.CLAIMS),
    **claims_of("tests.evidence_tracking", evidence_tracking.CLAIMS),
    **claims_of("tests.evidence_service", evidence_service.CLAIMS),
    "package": Claim(
        "a module and data of one's own in a package outside the tree, swept", tests_of("tests/test_example_package.py")
    ),
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in CLAIMS]
    if unknown:
        print(f"no claim {unknown[0]!r}; there are {', '.join(CLAIMS)}")
        return 2
    rows = []
    with tempfile.TemporaryDirectory(prefix="landsweep-evidence-") as folder:
        bench = Bench(Path(folder))
        for name in names or CLAIMS:
            print(f"measuring {name} …", flush=True)
            try:
                measured, holds = CLAIMS[name].measure(bench)
            except Exception:
                measured, holds = traceback.format_exc(limit=-2).replace("\n", " "), False
            rows.append((name, CLAIMS[name].text, measured, holds))
            print(f"  {'holds' if holds else 'DOES NOT HOLD'}: {measured}", flush=True)
    print("\n| claim | claimed | measured | |\n| --- | --- | --- | --- |")
    for name, claimed, measured, holds in rows:
        print(f"| {name} | {claimed} | {measured} | {'holds' if holds else '**does not hold**'} |")
    return 0 if all(holds for *_, holds in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
