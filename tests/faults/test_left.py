"""What processes leave that are killed while they write or hold something, and who clears it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from swe_cli import store
from swe_cli.errors import RunError, SweWarning
from swe_cli.files import HOST
from swe_cli.store import Run, holder, locked

FAILED = 1
NO_FLOCK = """
import errno, fcntl

def flock(*arguments):
    raise OSError(errno.ENOSYS, "Function not implemented")

fcntl.flock = flock
"""
HOLD = """
import os, signal, time, warnings
from pathlib import Path
from swe_cli.files import write_json
from swe_cli.store import Run
run = Run(Path({path!r}))
warnings.simplefilter("ignore")
with run.hold():
    {then}
"""
DIE = """os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
    write_json(run.path / "deep" / "half.json", 1)"""
STAY = 'print("held", flush=True); time.sleep(600)'
LIVING = 'from time import sleep; print("", flush=True); sleep(600)'


def process(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.fixture
def living():
    """A process of this machine that does nothing of ours."""
    other = process(LIVING)
    yield other.pid
    other.kill()
    other.communicate()


def killed_while_it_writes(path: Path, first: str = "") -> int:
    other = process(first + HOLD.format(path=str(path), then=DIE))
    assert other.wait(60) == -signal.SIGKILL
    other.stdout.close()
    return other.pid


def hidden(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob(".*") if path.name != ".lock"}


@pytest.mark.parametrize("first", ["", NO_FLOCK], ids=["flock", "no flock"])
def test_the_next_that_holds_a_run_clears_what_a_killed_one_left(first, tmp_path):
    run = Run(tmp_path / "train-x-1")
    killed = killed_while_it_writes(run.path, first)
    assert hidden(run.path) == {".holder.json", f".{killed}@{HOST}@half.json.tmp"}
    if first:  # which a lock of this process could not read
        after = process(first + HOLD.format(path=str(run.path), then="pass"))
        assert after.communicate(timeout=60)
        assert after.returncode == 0
    else:
        assert run.holder() is None
        with run.hold():
            assert hidden(run.path) == {".holder.json"}
    assert hidden(run.path) == set()


def test_what_others_here_just_write_is_no_litter(tmp_path, living):
    run = Run(tmp_path / "train-x-1")
    run.path.mkdir()
    report = run.path / f".{living}@{HOST}@table.csv.tmp"
    report.write_text("half")  # a report reads a run that it does not hold
    (run.path / f".{living}@elsewhere@model.safetensors.tmp").write_text("half")
    with run.hold():
        assert hidden(run.path) == {".holder.json", report.name}


def test_who_holds_a_run_is_told_from_another_process(tmp_path):
    path = tmp_path / "train-x-1"
    other = process(HOLD.format(path=str(path), then=STAY))
    try:
        assert other.stdout.readline() == "held\n"
        told = f"held by process {other.pid} on {HOST} since "
        with pytest.raises(RunError, match=told), Run(path).hold():
            pass
    finally:
        other.kill()
        other.communicate()
    with Run(path).hold():  # freed by the system
        assert f"process {os.getpid()} " in Run(path).holder()


def test_who_waits_for_a_cell_is_told_for_whom(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PATIENCE", 0.1)
    lock, order = tmp_path / ".locks" / "0f", []

    def second() -> None:
        told = f"Cell 0f is held by process {os.getpid()} on {HOST}"
        with pytest.warns(SweWarning, match=told), locked(lock, "Cell 0f"):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked(lock, "Cell 0f"):
        thread.start()
        thread.join(0.5)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert holder(lock) is None


# swe runs --clean


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """What one left that was killed while it wrote, and which process it was."""
    folder = tmp_path_factory.mktemp("killed") / "train-x-1"
    return folder, killed_while_it_writes(folder)


@pytest.fixture
def left(own_run, living, killed):
    """A results root with what was left of every kind; names by kind."""
    runs, cell = own_run.results / "runs", next((own_run.path.parent / "cells").glob("*/row.json"))
    folder, dead = killed
    shutil.copytree(folder, runs / "train-x-1")
    (half,) = (runs / "train-x-1").rglob("*.tmp")
    note = cell.parents[1] / ".locks" / f"{cell.parent.name}.holder.json"
    note.write_text(json.dumps({"process": dead, "host": HOST, "since": "then"}))
    writing = cell.with_name(f".{living}@{HOST}@timing.json.tmp")
    theirs = cell.with_name(f".{living}@elsewhere@timing.json.tmp")
    older = own_run.path / ".model.safetensors.12.tmp"
    for path in (writing, theirs, older):
        path.write_text("half")
    ours = {half, note, runs / "train-x-1/.holder.json"}
    return ours, {theirs, older}, {writing}


def kept(results: Path) -> dict[Path, bytes]:
    """Results: all that is not hidden."""
    paths = [path for path in results.rglob("*") if path.is_file() and "/." not in str(path)]
    return {path: path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    ("words", "answers", "removed"),
    [
        ("", "n\nn\n", ()),
        ("", "y\nn\n", (0,)),
        ("", "n\ny\n", (1,)),
        ("", "y\ny\n", (0, 1)),
        ("--yes", "", (0,)),
    ],
)
def test_clean_removes_what_is_left_after_a_yes(swe, own_run, left, words, answers, removed):
    before = kept(own_run.results)
    found = swe("runs", "--clean", *words.split(), input=answers)
    assert found.exit_code == 0, found.output
    for number, paths in enumerate(left):
        for path in paths:
            assert path.exists() is (number not in removed)
            named = str(path.relative_to(own_run.results / "runs")) in found.stdout
            assert named is (number < 2)
    assert kept(own_run.results) == before
    number = sum(len(left[of]) for of in removed)
    assert f"Removed {number} file" in found.stdout


def test_clean_without_anybody_to_ask_removes_nothing(swe, left):
    found = swe("runs", "--clean")
    assert found.exit_code == FAILED
    assert "Nobody answered. Add --yes" in " ".join(found.output.split())
    assert all(path.exists() for paths in left for path in paths)


def test_clean_of_nothing_asks_nothing(swe, own_run):
    found = swe("runs", "--clean")
    assert found.exit_code == 0, found.output
    assert "Removed 0 files of 0" in found.stdout


@pytest.mark.parametrize("host", [HOST, "elsewhere"])
def test_a_lock_that_is_held_is_freed_only_of_another_machine(swe, own_run, host):
    """As where a server of files still holds what a machine locked that is gone."""
    run = Run(own_run.path)
    with run.hold():
        told = {"process": 7, "host": host, "since": "then"}
        (run.path / ".holder.json").write_text(json.dumps(told))
        found = swe("runs", "--clean", input="y\ny\n")
        assert found.exit_code == 0, found.output
        if host == HOST:
            assert "Removed 0 files of 0" in found.stdout
            assert run.holder() == f"process 7 on {HOST} since then"
        else:
            assert f"{run.name}/.lock: held by process 7 on elsewhere" in found.stdout
            with Run(own_run.path).hold():
                pass
