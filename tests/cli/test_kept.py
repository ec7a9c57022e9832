"""A report that was made is said again, while nothing that it is made of has changed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY
from typer.testing import CliRunner

from swe_cli import store
from swe_cli.app import app
from swe_cli.commands import report as page

SWEEP = ("sweep", *TINY, "criteria=swe,magnitude", "ratios=0.3,0.6", "launcher.workers=1", "-q")


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("swept") / "results"
    told = CliRunner().invoke(app, [*SWEEP, f"results_dir={results}"])
    assert told.exit_code == 0, told.output
    return results


@pytest.fixture
def made(swept, monkeypatch, tmp_path) -> list[str]:
    """A sweep, in a clean checkout; what is drawn from now on, which takes its time only once."""
    shutil.copytree(swept, tmp_path / "results")
    monkeypatch.setattr(store, "_commit", lambda: "abc")
    drawn: list[str] = []

    def written(figure, folder, name):
        drawn.append(name)
        folder.mkdir(exist_ok=True)
        for kind in ("png", "svg", "pdf"):
            (folder / f"{name}.{kind}").write_text(name)

    monkeypatch.setattr(page, "write_figure", written)
    for name in ("curve", "weight_figure"):
        monkeypatch.setattr(page, name, lambda *_, **__: None)
    return drawn


def sweep_of(results: Path) -> Path:
    (run,) = results.glob("runs/sweep-*")
    return run


def outputs(run: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in run.rglob("*.[cmps][svdn][vgf]*")}


def test_a_report_is_said_again_byte_for_byte(swe, made, tmp_path):
    first = swe("report")
    assert "loss" in made
    made.clear()
    before = outputs(sweep_of(tmp_path / "results"))
    again = swe("report")
    assert (again.exit_code, again.stdout) == (0, first.stdout)
    assert "Tables and figures:" in again.stdout
    assert not made
    assert outputs(sweep_of(tmp_path / "results")) == before
    # What the sweep says is kept apart, and what a report made anew is what the sweep made.
    assert swe(*SWEEP).exit_code == 0
    made.clear()
    resumed = swe(*SWEEP)
    assert "0 trained, 0 cells run, 8 reused" in resumed.stdout
    assert resumed.stdout.split("\n\n")[:-1] == first.stdout.split("\n\n")[:-1]
    assert not made


def test_one_that_is_seen_in_colour_is_said_in_colour(swe, made, monkeypatch):
    plain = swe("report").stdout
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    made.clear()
    coloured = swe("report").stdout
    assert made
    assert "\x1b[" in coloured
    made.clear()
    assert swe("report").stdout == coloured != plain
    assert not made


def touch(path: Path) -> None:
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))


def rewrite(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


CHANGES: dict[str, Callable[[Path], None]] = {
    "a row": lambda run: touch(next(run.parent.glob("cells/*/row.json"))),
    "windows": lambda run: touch(next(run.parent.glob("cells/*/windows.safetensors"))),
    "the trajectory": lambda run: touch(next(run.parent.glob("train-*/trajectory.safetensors"))),
    "what is beside a row": lambda run: next(run.parent.glob("cells/*/layers.json")).unlink(),
    "what the sweep is of": lambda run: rewrite(run / "cells.json"),
    "the table": lambda run: rewrite(run / "table.csv"),
    "no table": lambda run: (run / "table.csv").unlink(),
    "a figure": lambda run: rewrite(run / "figures/loss.png"),
    "no figure": lambda run: (run / "figures/loss.pdf").unlink(),
}


def test_whatever_changes_the_report_is_made_anew(swe, made, tmp_path):
    assert swe("report", "-q").exit_code == 0
    for change, do in CHANGES.items():
        made.clear()
        assert swe("report", "-q").exit_code == 0
        assert not made, change
        do(sweep_of(tmp_path / "results"))
        assert swe("report", "-q").exit_code == 0
        assert made, change


def test_what_else_is_asked_is_made(swe, made, monkeypatch):
    swe("report", "-q")
    words = [("--rows",), ("--tolerance", "0.5"), ("--against", "magnitude"), ("energy.watts=7",)]
    for asked in words:
        made.clear()
        assert swe("report", "-q", *asked).exit_code == 0
        assert made, asked
    swe("report", "-q")
    made.clear()
    monkeypatch.setattr(store, "_commit", lambda: "def")  # by other code
    assert swe("report", "-q").exit_code == 0
    assert made


def test_what_must_not_be_kept_is_made_each_time(swe, made, monkeypatch, tmp_path):
    for words in (("--json",), ("--format", "csv")):
        assert swe("report", "-q", *words).stdout == swe("report", "-q", *words).stdout != ""
    monkeypatch.setattr(store, "_commit", lambda: "abc-dirty")
    swe("report", "-q")
    made.clear()
    swe("report", "-q")
    assert made
    monkeypatch.setattr(store, "_commit", lambda: "abc")
    (run,) = (path.parent for path in tmp_path.glob("results/runs/sweep-*/cells.json"))
    row = json.loads((run / "cells.json").read_text())[-1]["cell"]
    (run.parent / "cells" / row / "row.json").write_text("[")
    for _ in range(2):  # what was warned of is said each time
        assert "is damaged" in swe("report", "-q").stderr


def test_a_cache_that_is_damaged_or_cannot_be_written_is_no_failure(swe, made, tmp_path):
    first = swe("report", "-q").stdout
    for kept in (tmp_path / "cache/reports").iterdir():
        kept.write_text('{"of": ')
    assert swe("report", "-q").stdout == first
    shutil.rmtree(tmp_path / "cache/reports")
    (tmp_path / "cache/reports").write_text("a file")
    assert swe("report", "-q").stdout == first


def test_what_lies_in_the_way_is_not_looked_into(swe, made, tmp_path):
    """Folders with dots and pipes where a report goes, links to themselves, other runs."""
    out, runs = tmp_path / "out", tmp_path / "results" / "runs"
    (out / "x.egg-info").mkdir(parents=True)
    os.mkfifo(out / "a.pipe")
    (runs / "train-x-12345678").mkdir()
    (runs / "train-x-12345678" / "manifest.json").symlink_to("manifest.json")
    for words in (("-o", out), ("--tolerance", "inf")):
        first = swe("report", "-q", *words)
        assert first.exit_code == 0
        made.clear()
        (runs / "train-x-12345678" / "metrics.jsonl").write_text(str(words))
        assert swe("report", "-q", *words).stdout == first.stdout
        assert not made


def test_what_is_missing_may_come_back(swe, made, tmp_path):
    (training,) = (tmp_path / "results" / "runs").glob("train-*")
    text = training / "config.json"
    held = text.read_text()
    text.write_text("{}")
    assert "config.json is damaged" in swe("report", "-q").stdout
    text.write_text(held)  # which is not looked at
    assert "config.json is damaged" not in swe("report", "-q").stdout


def test_the_reader_of_a_pipe_may_leave(swe, made, tmp_path):
    swe("report", "-q")
    code = "from swe_cli import store; store._commit = lambda: 'abc'\n"
    code += "from swe_cli.app import main; main()"
    words = [sys.executable, "-c", code, "report", "-q", f"results_dir={tmp_path}/results"]
    subprocess.run(words, check=True, stdout=subprocess.PIPE)  # it is made, for these words
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as told:
        told.stdout.close()
        assert b"Error" not in told.stderr.read()
    assert told.returncode in (0, 1)
