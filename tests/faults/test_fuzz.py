"""Any file of a results folder, damaged in any way: a sentence, soon, whatever is asked for."""

import json
import math
import os
import resource
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import TINY_TRAINING
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

SECONDS, MEGABYTES = 2.0, 500  # more than a command takes where nothing is damaged
VALUES = (None, "", "x", "../..", "\u0000", "\ud800", 0, -1, 2**70, 0.5, 1e308, math.nan, math.inf)
VALUES += (True, [], {}, [None], {"a": 1}, ["x"])
ENDS = ("row.json", "manifest.json", "config.json", "cells.json", "cell.json")
FAST = ("evaluate TRAIN", "evaluate PRUNE", "prune TRAIN --ratio 0.5 recovery.steps=2")
SLOW = ("report SWEEP", "report TRAIN", "report", "report SWEEP --against magnitude")
SLOW += ("report SWEEP --html", "report SWEEP --format csv", "recommend SWEEP", "generate PRUNE")
SLOW += (
    "compare TRAIN PRUNE",
    "compare SWEEP PRUNE",
    "runs --json",
    "prune TRAIN --ratio 0.4",
    *FAST,
)


@dataclass(frozen=True)
class Whole:
    """A results root with a run of each kind, to be copied; and what its names stand for."""

    results: Path
    names: dict[str, str]
    files: list[str] = field(repr=False)
    seconds: dict[str, float] = field(repr=False, default_factory=dict)


def invoke(line: str, whole: Whole, results: Path):
    """A command, the seconds of processor that it took, and the megabytes that it added."""
    from swe_cli.app import app
    from swe_cli.commands import evidence
    from swe_cli.experiments import training

    for kept in (training._dataset, evidence._windows):
        kept.cache_clear()
    training.OPEN.clear()
    words = [whole.names.get(word, word) for word in line.split()]
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    told = CliRunner().invoke(app, [*words, f"results_dir={results}"])
    seconds = time.process_time() - started
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return told, seconds, grown


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    from swe_cli.app import app

    results = tmp_path_factory.mktemp("whole") / "results"
    sweep = ("recovery.steps=2", "ratios=0.3,0.6", "criteria=swe,magnitude", "launcher.workers=1")
    for words in (
        ["train", *TINY_TRAINING],
        ["prune", "--ratio", "0.5", "recovery.steps=2"],
        ["sweep", *TINY_TRAINING, *sweep],
    ):
        made = CliRunner().invoke(app, [*words, "-q", f"results_dir={results}"])
        assert made.exit_code == 0, made.output
    names = {p.name.partition("-")[0].upper(): p.name for p in results.glob("runs/*-*")}
    assert set(names) == {"TRAIN", "PRUNE", "SWEEP"}
    files = [str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()]
    return Whole(results, names, sorted(files))


def usual(line: str, whole: Whole, results: Path) -> float:
    """Seconds that a command takes where nothing is damaged."""
    if line not in whole.seconds:
        for _ in range(2):  # the first of a process imports
            shutil.copytree(whole.results, results)
            told, seconds, _ = invoke(line, whole, results)
            shutil.rmtree(results)
            assert told.exit_code == 0, (line, told.output)
        whole.seconds[line] = seconds
    return whole.seconds[line]


def places(value, at=()):
    """Where something stands in a JSON value."""
    if at:
        yield at
    listed = enumerate(value) if isinstance(value, list) else ()
    for key, of in value.items() if isinstance(value, dict) else listed:
        yield from places(of, (*at, key))


@st.composite
def damage(draw, whole: Whole):
    """A file, and what becomes of it: a function of its path."""
    telling = [name for name in whole.files if name.endswith(ENDS)]
    name = draw(st.sampled_from(telling) | st.sampled_from(whole.files))
    data = (whole.results / name).read_bytes()
    ways = ["flip", "cut", "grow", "gone", "folder", "nowhere", "itself", "elsewhere", "endless"]
    ways += ["pipe"]
    if name.endswith(".json"):
        ways = ["key", "value", "all"] * 5 + ways
    way = draw(st.sampled_from(ways))
    if way in ("key", "value", "all"):
        told = json.loads(data)
        found = [*places(told)]
        new = draw(st.sampled_from(VALUES))
        if way == "all" or not found:
            told = new
        else:
            *outer, last = draw(st.sampled_from(found))
            inside = told
            for key in outer:
                inside = inside[key]
            if way == "key":
                del inside[last]
            else:
                inside[last] = new
        data = json.dumps(told).encode()
    elif data and way in ("flip", "cut"):
        place = draw(st.integers(0, len(data) - 1))
        flipped = bytes([data[place] ^ 1 << draw(st.integers(0, 7))])
        data = data[:place] + (flipped + data[place + 1 :] if way == "flip" else b"")

    def do(path: Path) -> None:
        path.unlink()
        if way == "folder":
            path.mkdir()
        elif way == "pipe":
            os.mkfifo(path)
        elif way in ("nowhere", "itself", "elsewhere", "endless"):
            to = {"itself": path.name, "elsewhere": "/etc/passwd", "endless": "/dev/zero"}
            path.symlink_to(to.get(way, "nowhere"))
        elif way != "gone":
            path.write_bytes(data)
        if way == "grow":
            os.truncate(path, 70 << 20)

    return name, way, do


def survives(whole: Whole, root: Path, lines, data) -> None:
    name, way, do = data.draw(damage(whole))
    line = data.draw(st.sampled_from(lines))
    results = root / "results"
    shutil.rmtree(results, ignore_errors=True)
    most = {asked: 2 * usual(asked, whole, results) + SECONDS for asked in ("runs", line)}
    shutil.copytree(whole.results, results)
    do(results / name)
    for asked in most:
        told, seconds, megabytes = invoke(asked, whole, results)
        about = name, way, asked, told.output[-2000:]
        assert told.exit_code in (0, 1, 2), about
        assert isinstance(told.exception, SystemExit | None), about
        assert told.output, about
        assert "Traceback" not in told.output, about
        assert "defect" not in told.output, about
        assert "Add --debug" not in told.output, about
        assert seconds < most[asked], about
        assert megabytes < MEGABYTES, about
        if asked == "runs":
            assert told.exit_code == 0, about
            assert all(of in told.output for of in whole.names.values()), about
        if asked == "report SWEEP" and name.startswith("runs/cells/"):
            assert told.exit_code == 0, about


HOW = settings(derandomize=True, deadline=None, suppress_health_check=[*HealthCheck])


@settings(HOW, max_examples=60)
@given(data=st.data())
def test_damage_is_a_sentence(whole, tmp_path_factory, data):
    survives(whole, tmp_path_factory.getbasetemp() / "fast", FAST, data)


@pytest.mark.slow
@settings(HOW, max_examples=2000)
@given(data=st.data())
def test_damage_is_a_sentence_whatever_is_asked(whole, tmp_path_factory, data):
    survives(whole, tmp_path_factory.getbasetemp() / "slow", SLOW, data)
