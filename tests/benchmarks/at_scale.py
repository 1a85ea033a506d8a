"""What 10⁹ trials on 10⁴ nodes would take of driver, store and Ray: measured constants multiplied out.

``python -m tests.benchmarks.at_scale`` prints the table of docs/scale.md. Nothing is run.
"""

from __future__ import annotations

from dataclasses import dataclass

from landsweep.cluster.commit import AT_ONCE
from landsweep.cluster.plan import MAX_CHEAP_BATCH
from landsweep.cluster.policy import SEGMENT_ROWS
from landsweep.cluster.spec import MAX_TRIALS
from tests.noop import TABLES


@dataclass(frozen=True)
class Measured:
    """Of a million no-op trials on two cores (``python -m tests.evidence_scale million`` and its folder); a request's
    seconds are supposed."""

    driver_seconds: float = 28.5e-6  # CPU of the driver a trial
    worker_seconds: float = 150e-6  # CPU of a worker a trial
    trial_bytes: float = 122.0  # in the segments of all tables, parameters and the log
    request_seconds: float = 20e-3  # to read a small object from S3

    def reading_seconds(self, files: int) -> float:
        """To read a staged batch of so many files back from S3: batch.json by itself, the others ``AT_ONCE``."""
        return (1 + (files - 1) / AT_ONCE) * self.request_seconds


@dataclass(frozen=True)
class Prices:
    """S3 standard, us-east-1, in dollars."""

    put: float = 0.005e-3  # a PUT or LIST
    get: float = 0.0004e-3
    byte_month: float = 0.023e-9


def table(trials: int, nodes: int, measured: Measured, prices: Prices) -> list[tuple[str, str]]:
    """Rows: what, how much."""
    sweeps = -(-trials // MAX_TRIALS)
    per_sweep = min(trials, MAX_TRIALS)
    batches, segments = per_sweep / MAX_CHEAP_BATCH, per_sweep / SEGMENT_ROWS
    staged = len(TABLES) + 2  # files of a batch: tables, parameters, batch.json
    written = len(TABLES) + 1 + 2  # of a segment: tables, parameters, claim and .done
    puts, gets = sweeps * (batches * staged + segments * written), sweeps * batches * staged
    reading = measured.reading_seconds(staged) / MAX_CHEAP_BATCH  # of what a driver gathers, a trial
    rate = 1 / (measured.driver_seconds + reading)
    bytes_ = trials * measured.trial_bytes
    return [
        ("sweeps, at most 10⁷ trials each, a driver each", f"{sweeps:,}"),
        ("batches of 1,024 trials, a sweep", f"{batches:,.0f}"),
        ("files of a table, a sweep (segments of 50,000 rows)", f"{segments:,.0f}"),
        ("entries of a sweep's log (claim and .done)", f"{2 * segments:,.0f}"),
        ("objects that stay, all sweeps", f"{sweeps * segments * written:,.0f}"),
        ("most trials a second that one driver commits, by its CPU alone", f"{1 / measured.driver_seconds:,.0f}"),
        ("… with what it reads back from S3", f"{rate:,.0f}"),
        ("… and so PUT requests a second under one sweep's prefix", f"{rate / MAX_CHEAP_BATCH * staged:,.0f}"),
        ("… and actor calls a second of one driver", f"{rate / MAX_CHEAP_BATCH:,.0f}"),
        ("trials a second that the nodes offer, 2 cores each, no-op", f"{nodes * 2 / measured.worker_seconds:,.0f}"),
        ("trials a second that all drivers commit", f"{sweeps * rate:,.0f}"),
        ("shortest trial that leaves the drivers idle, core-seconds", f"{nodes * 2 / (sweeps * rate):.4f}"),
        ("seconds for all trials, no-op, bound by the drivers", f"{trials / (sweeps * rate):,.0f}"),
        ("resume decision of a sweep, s", f"{2 * segments * measured.request_seconds:.0f}"),
        ("PUT requests in all, $", f"{puts:,.0f}, {puts * prices.put:.0f}"),
        ("GET requests in all, $", f"{gets:,.0f}, {gets * prices.get:.0f}"),
        ("bytes, $ a month", f"{bytes_ / 1e9:,.0f} GB, {bytes_ * prices.byte_month:.0f}"),
    ]


def main() -> None:
    print("| 10⁹ trials on 10⁴ nodes | |\n| --- | --- |")
    for name, value in table(10**9, 10**4, Measured(), Prices()):
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
