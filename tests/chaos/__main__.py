"""``python -m tests.chaos [SEED …]``: fifty runs, or those of the seeds. Exits 1 where anything is wrong."""

from __future__ import annotations

import sys

from tests.chaos.campaign import RUNS, chaos

if __name__ == "__main__":
    said, good = chaos([int(seed) for seed in sys.argv[1:]] or range(RUNS))
    print(said)
    sys.exit(0 if good else 1)
