"""Bench 4: what of a sweep's wall time is neither training, recovery nor evaluation.

    python scripts/bench/overhead.py [swe sweep overrides; default experiment=demo]

Runs the sweep into a temporary results root. Wanted: ≤ 10 %.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd


def main() -> None:
    words = sys.argv[1:] or ["experiment=demo"]
    swe = Path(sys.executable).with_name("swe")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        command = [swe, "sweep", "-q", *words, f"results_dir={folder}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - started
        timings = pd.read_csv(next(Path(folder).glob("runs/sweep-*/costs.csv")))
    stages = timings.filter(regex=r"\.seconds$").sum()
    work = stages[["training.seconds", "recovery.seconds", "evaluation.seconds"]].sum()
    print(stages.round(2).to_string())
    print(f"wall {wall:.1f} s, training + recovery + evaluation {work:.1f} s")
    print(f"4. overhead {(wall - work) / wall:.1%}")


if __name__ == "__main__":
    main()
