"""Bench 5: how long swe --help takes, warm.

    python scripts/bench/help.py

Wanted: ≤ 0.25 s.
"""

import statistics
import subprocess
import sys
from pathlib import Path

from common import seconds


def main() -> None:
    command = [Path(sys.executable).with_name("swe"), "--help"]
    times = [
        seconds(lambda: subprocess.run(command, capture_output=True, check=True)) for _ in range(15)
    ]
    print(f"5. swe --help: median {statistics.median(times[2:]):.3f} s")


if __name__ == "__main__":
    main()
