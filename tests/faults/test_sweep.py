"""A sweep that is killed, stopped or partly failed: what is done stays done."""

import shutil

import pytest
from training import toys
from training.toys import After, never, sweep_of, write_text

from swe_cli.errors import Interrupted
from swe_cli.report.tables import frame, write

from .dying import Killed, dying_at

SWEEP = ("criteria=swe", "ratios=0.5", "recovery.steps=2", "keep=models", "training.steps=4")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def clean(text, tmp_path_factory):
    """Results with nothing but the finished training; the bytes of the sweep's table."""
    results = tmp_path_factory.mktemp("clean")
    table = swept(text, results).read_bytes()
    assert table.count(b"\n") == 1 + 4 + 1  # the controls and one cut
    shutil.rmtree(results / "runs" / "cells")
    return results, table


def swept(text, results, stop=never):
    """What swe sweep does, without its figures."""
    outcome = toys.swept(sweep_of(text, results, *SWEEP), stop)
    assert not outcome.failed
    return write(frame(outcome.rows), results / "table")[0]


@pytest.mark.parametrize("side", ["before", "after"])
def test_killed_at_every_rename_the_table_is_the_same_bytes(side, text, clean, tmp_path):
    trained, expected = clean
    shutil.copytree(trained, tmp_path / "count")
    with dying_at() as renames:
        swept(text, tmp_path / "count")
    tables = len([*(tmp_path / "count" / "table").iterdir()])
    assert tables >= 3
    assert renames.count == 5 * 7 + tables  # windows, row, timing and the like of each
    for index in range(renames.count):
        results = tmp_path / str(index)
        shutil.copytree(trained, results)
        with pytest.raises(Killed), dying_at(index, side):
            swept(text, results)
        assert swept(text, results).read_bytes() == expected, index


def test_stopped_between_cells_the_rest_is_run_later(text, clean, tmp_path):
    trained, expected = clean
    results = tmp_path / "results"
    shutil.copytree(trained, results)
    with pytest.raises(Interrupted, match="finished cells are safe"):
        swept(text, results, stop=After(3))
    done = list(results.glob("runs/cells/*/row.json"))
    assert len(done) == 2
    before = {path: path.stat().st_mtime_ns for path in done}
    assert swept(text, results).read_bytes() == expected
    assert {path: path.stat().st_mtime_ns for path in done} == before
