"""swe sweep in the hands of kill -9, alone and with workers: the same command, the same bytes."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from training.toys import words_for, write_text

SWEEP = ("criteria=swe,magnitude", "ratios=0.3,0.6", "recovery.steps=20", "training.steps=60")
SWEEP += ("training.checkpoint_every=7", "seeds=1,2", "threads=1", "keep=models")
PATIENCE = 120.0
LATEST = 9.0  # seconds after which it may be done


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


def start(text: Path, results: Path, workers: int) -> subprocess.Popen:
    words = ["sweep", *words_for(text, *SWEEP), f"launcher.workers={workers}"]
    code = "from swe_cli.app import main; main()"
    with (results.parent / f"{results.name}.out").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-c", code, *words, f"results_dir={results}", "-q"],
            stdout=output,
            stderr=output,
            env=os.environ | {"SWE_TEST": str(results)},
        )


def finished(text: Path, results: Path, workers: int) -> dict[str, bytes]:
    """Run to the end; the table and all tensors, by place."""
    process = start(text, results, workers)
    assert process.wait(PATIENCE) == 0, (results.parent / f"{results.name}.out").read_text()
    paths = [*results.glob("runs/sweep-*/table.csv"), *results.glob("runs/*/*.safetensors")]
    paths += results.glob("runs/cells/*/*.safetensors")
    return {str(path.relative_to(results)): path.read_bytes() for path in paths}


def alive(results: Path) -> list[str]:
    """Processes that were started, by whomever, for these results."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"SWE_TEST={results}\0".encode() in path.read_bytes() + b"\0":
                found.append(path.parent.name)
    return found


def rows(results: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in results.glob("runs/cells/*/row.json")}


@pytest.fixture(scope="module")
def expected(text, tmp_path_factory):
    """The same sweep, left alone."""
    whole = finished(text, tmp_path_factory.mktemp("alone") / "results", 1)
    assert len([name for name in whole if name.endswith("windows.safetensors")]) == 2 * (4 + 4)
    return whole


def killed_and_run_again(text, results, workers, seconds, expected) -> None:
    process = start(text, results, workers)
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = rows(results)
    assert finished(text, results, workers) == expected
    again = rows(results)
    assert all(again[path] == written for path, written in done.items())  # none was run twice
    shutil.rmtree(results)


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_a_moment_then_the_same_command(workers, text, tmp_path, expected):
    seconds = random.Random(workers).uniform(4.0, LATEST)
    killed_and_run_again(text, tmp_path / "results", workers, seconds, expected)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_twenty_moments_then_the_same_command(workers, text, tmp_path, expected):
    moments = random.Random(20 + workers)
    for place in range(20):
        seconds = moments.uniform(2.0, LATEST)
        killed_and_run_again(text, tmp_path / str(place), workers, seconds, expected)


def test_ctrl_c_reaches_the_workers_and_nothing_is_left_running(text, tmp_path, expected):
    results = tmp_path / "results"
    process = start(text, results, 2)
    end = time.monotonic() + PATIENCE
    while not [*results.glob("runs/train-*/metrics.jsonl")] and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    said = (tmp_path / "results.out").read_text()
    assert "Type the same again to resume: swe sweep" in said
    assert "Traceback" not in said
    while left := alive(results):  # multiprocessing's own tracker ends a moment later
        assert time.monotonic() < end, left
        time.sleep(0.1)
    assert finished(text, results, 2) == expected
