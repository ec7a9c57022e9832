"""Bench 10: this checkout against another one, whole commands, alternating.

    python scripts/bench/checkouts.py OTHER_CHECKOUT [help plan resume report masks demo]

Prints before (the other checkout), after (this one) and the median of the paired ratios. Wanted of
the rebuilding: help ≤ 0.25 s; plan (1,590 cells) ≤ 6 s; resume (999 finished cells) ≤ 2 s; report
(1,590 rows) ≤ half; masks (nine of 10.6M weights) about 0.1 s; demo not slower.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from common import alternate, seconds

HERE = Path(__file__).parents[2]
SWE = "from swe_cli.app import main; main()"
PLAN = """
import time
from pathlib import Path
try:
    from swe_cli.config import ConfigRoot, read_tokens
except ImportError:
    from swe_cli.compose import ConfigRoot, read_tokens
try:
    from swe_cli.experiments.sweep import plan_sweep
except ImportError:
    try:
        from swe_cli.experiments.plan import plan_sweep
    except ImportError:
        from swe_cli.sweeps.plan import plan_sweep
started = time.perf_counter()
plan_sweep(read_tokens(["experiment=criteria_gpt"]), ConfigRoot(), Path("nowhere"))
print(time.perf_counter() - started)
"""
MASKS = """
import sys, time
sys.path.insert(0, "scripts/bench")
import torch
from masks import SHAPES, ours
generator = torch.Generator().manual_seed(0)
weights = {f"w{i}": torch.randn(s, generator=generator) for i, s in enumerate(SHAPES)}
ours(weights)
started = time.perf_counter()
ours(weights)
print(time.perf_counter() - started)
"""
TINY = "model.layers=1 model.heads=2 model.width=16 model.context=16 training.steps=4"
TINY += " training.batch_size=2 training.evaluate_every=2 data.train_characters=2000"
TINY += " data.validation_characters=200 data.test_characters=600 recovery=none criteria=swe"
THOUSAND = ["sweep", "-q", *TINY.split(), "ratios=0.001..0.999"]
DEMO = ["sweep", "-q", "experiment=demo"]


def run(checkout: Path, *arguments: str, code: str = SWE, results: Path | None = None) -> str:
    """What a command of a checkout prints."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    if results:
        environment["SWE_RESULTS_DIR"] = str(results)
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


def say(name: str, before: float, after: float, ratio: float) -> None:
    print(f"{name:8} before {before:7.3f} s, after {after:7.3f} s, after / before {ratio:.2f}")


def whole(name: str, other: Path, rounds: int, *arguments: str, results: Path | None) -> None:
    """Wall seconds of a whole command."""

    def once(checkout: Path) -> None:
        with tempfile.TemporaryDirectory() as fresh:
            run(checkout, *arguments, results=results or Path(fresh))

    after, before, ratio = alternate(partial(once, HERE), partial(once, other), rounds)
    say(name, before, after, ratio)


def inside(name: str, other: Path, rounds: int, code: str) -> None:
    """Seconds that a program measures of itself, imports apart."""
    pairs = [[float(run(of, code=code)) for of in (other, HERE)] for _ in range(rounds)]
    before, after = (statistics.median(of) for of in zip(*pairs, strict=True))
    say(name, before, after, statistics.median(b / a for a, b in pairs))


def main() -> None:
    other, *wanted = sys.argv[1:] or sys.exit(__doc__)
    there = Path(other).resolve()
    wanted = wanted or ["help", "plan", "resume", "report", "masks", "demo"]
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        if "help" in wanted:
            whole("help", there, 9, "--help", results=results)
        if "plan" in wanted:
            inside("plan", there, 3, PLAN)
        if "resume" in wanted:
            print(f"{seconds(partial(run, HERE, *THOUSAND, results=results)):.0f} s to make cells")
            whole("resume", there, 3, *THOUSAND, results=results)
        if "report" in wanted:
            inside("report", there, 3, (HERE / "scripts/bench/report.py").read_text())
        if "masks" in wanted:
            inside("masks", there, 5, MASKS)
        if "demo" in wanted:
            whole("demo", there, 1, *DEMO, results=None)


if __name__ == "__main__":
    main()
