"""Two at once, disks that are full, clocks that are set back: the same table, and nothing twice."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training.toys import words_for, write_text

SWEEP = ("criteria=swe,magnitude", "ratios=0.3,0.6", "recovery.steps=2", "training.steps=8")
SWEEP += ("seeds=1,2", "threads=1", "keep=models")
CELLS = 2 * (4 + 4)
PATIENCE = 240.0
PLAIN = "from swe_cli.app import main; main()"
A_YEAR_AGO = f"""
import time
now = time.time
time.time = lambda: now() - {365 * 86400}
{PLAIN}
"""

LOGGING = """
import os

replace = os.replace

def logged(source, target, **more):
    replace(source, target, **more)
    if str(target).endswith("row.json"):
        with open(os.environ["SWE_TEST_LOG"], "a") as file:
            file.write(f"{target}\\n")

os.replace = logged
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


def start(text: Path, results: Path, *words: str, code=PLAIN, sweep=SWEEP, env=None):
    line = ["sweep", *words_for(text, *sweep), *words, f"results_dir={results}"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": env}
    return subprocess.Popen([sys.executable, "-c", code, *line], **options)


def ended(process: subprocess.Popen) -> tuple[int, str]:
    said = process.communicate(timeout=PATIENCE)[0]
    return process.returncode, " ".join(said.split())


def tables(results: Path) -> list[bytes]:
    return [path.read_bytes() for path in results.glob("runs/sweep-*/table.csv")]


def tensors(results: Path) -> dict[str, bytes]:
    paths = [*results.glob("runs/*/*.safetensors"), *results.glob("runs/cells/*/*.safetensors")]
    return {str(path.relative_to(results)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def alone(text, tmp_path_factory):
    """What one process makes of the sweep."""
    results = tmp_path_factory.mktemp("alone") / "results"
    code, said = ended(start(text, results, "launcher.workers=1"))
    assert code == 0, said
    assert f"2 trained, {CELLS} cells run, 0 reused" in said
    return results


@pytest.mark.slow
def test_drivers_with_workers_at_once_run_no_cell_twice(text, tmp_path, alone):
    """Two of one sweep, the second after the first, and one that shares trainings and cells."""
    results, log = tmp_path / "results", tmp_path / "log"
    (tmp_path / "sitecustomize.py").write_text(LOGGING)  # which every worker reads, too
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = os.environ | {"PYTHONPATH": path, "SWE_TEST_LOG": str(log)}
    lines = [SWEEP, SWEEP, ("criteria=magnitude", *SWEEP[1:])]
    at_once = [
        start(text, results, "launcher.workers=2", "--wait", sweep=sweep, env=environment)
        for sweep in lines
    ]
    found = [ended(process) for process in at_once]
    assert [code for code, _ in found] == [0, 0, 0], found
    written = log.read_text().split()
    assert len(written) == len({*written}) == CELLS
    trained = [int(said.partition(" trained, ")[0].rpartition(" ")[2]) for _, said in found]
    assert sum(trained) == 2, found
    assert {*tables(alone)} < {*tables(results)}
    assert tensors(results) == tensors(alone)


def test_a_disk_that_is_full_says_so_and_goes_on_with_room(text, tmp_path, alone):
    disk, results = tmp_path / "disk", tmp_path / "disk" / "results"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        code, said = ended(start(text, results, "launcher.workers=1"))
        assert code == 1, said
        assert "No space left on device" in said
        assert "What was written before stays valid" in said
        assert "Traceback" not in said
        assert "defect" not in said
        assert len([*results.glob("runs/*/.*.tmp")]) == 0  # room is what is wanted
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        done = {p: p.stat().st_mtime_ns for p in results.glob("runs/cells/*/row.json")}
        code, said = ended(start(text, results, "launcher.workers=1"))
        assert code == 0, said
        assert all(path.stat().st_mtime_ns == written for path, written in done.items())
        assert tables(results) == tables(alone)
        assert tensors(results) == tensors(alone)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_times_that_are_set_back_change_nothing(text, tmp_path, alone):
    """All files of 1990, and a clock that is a year behind them when it goes on."""
    results = tmp_path / "results"
    shutil.copytree(alone, results)
    for path in sorted(results.glob("runs/cells/*"))[::2]:
        shutil.rmtree(path)
    rows = [*results.glob("runs/cells/*/row.json")]
    then = time.mktime((1990, 1, 1, 0, 0, 0, 0, 0, 0))
    for path in results.rglob("*"):
        os.utime(path, (then, then))
    code, said = ended(start(text, results, "launcher.workers=1", code=A_YEAR_AGO))
    assert code == 0, said
    assert f"0 trained, {CELLS - len(rows)} cells run, {len(rows)} reused" in said
    assert all(path.stat().st_mtime == then for path in rows)
    assert tables(results) == tables(alone)
    assert tensors(results) == tensors(alone)
