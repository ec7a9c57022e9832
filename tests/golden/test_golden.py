"""A tiny train → sweep → tables. Refactors keep them; who means to change a number says so here.

To renew a reference after such a change: the failing test names the new file; look at what
changed in it, copy it over the one here, and say why in docs/LOG.md.
"""

import csv
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from safetensors.torch import load_file
from training.toys import assert_same_tensors, words_for, write_text

from . import adapter
from .conftest import HERE, command

REFERENCE = HERE / "table.csv"
# Names, hashes and asked amounts are exact; what a processor rounds differently is not.
LOOSE = ("loss_", "delta_", "bits_", "difference_", "detectable_")
TOLERANCE = {"perplexity": 1e-2, "compression": 1e-3, "jaccard_magnitude": 1e-2}
# Whole numbers without a comma are names, seeds and counts.
NUMBER = re.compile(r"[-+−]?\d+\.\d+|\d{1,3}(?:,\d{3})+")
LEARNING = ("model.dropout=0.0", "training.steps=40", "training.learning_rate=0.01")
SWEEP = (
    *LEARNING,
    "criteria=swe,magnitude,random",
    "seeds=1,2",
    "recovery.steps=3",
)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"), words=300)


def sweep(text, results, ratios="ratios=0.3,0.6") -> str:
    return command("sweep", *words_for(text, *SWEEP, ratios), f"results_dir={results}")


def newest(results: Path, kind: str) -> Path:
    finished = (results / "runs").glob(f"{kind}-*/manifest.json")
    return max(finished, key=lambda path: path.stat().st_mtime_ns).parent


def table_of(results: Path) -> Path:
    return newest(results, "sweep") / "table.csv"


@pytest.fixture(scope="module")
def results(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    said = sweep(text, folder)
    assert "2 trained, 20 cells run, 0 reused" in said
    return folder


@pytest.fixture(scope="module")
def compared(results, tmp_path_factory):
    """What every line is told to be against magnitude."""
    folder = tmp_path_factory.mktemp("against")
    command("report", table_of(results).parent, "--against", "magnitude", "--output", folder)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_rows(path: Path, reference: Path) -> None:
    found, expected = rows_of(path), rows_of(reference)
    assert list(found[0])[: len(expected[0])] == list(expected[0])  # columns are only appended
    for line, (row, before) in enumerate(zip(found, expected, strict=True)):
        for column, value in before.items():
            where = f"line {line}, {column} of {path}"
            tolerance = TOLERANCE.get(column, 1e-3 if column.startswith(LOOSE) else None)
            if tolerance is not None and value:
                assert float(row[column]) == pytest.approx(float(value), abs=tolerance), where
            else:
                assert row[column] == value, where


def assert_same_text(path: Path, reference: Path) -> None:
    """Every word but the numbers, and the numbers, as they are rounded, but for a processor's."""
    found, expected = path.read_text(), reference.read_text()
    assert NUMBER.sub("#", found) == NUMBER.sub("#", expected), path
    for now, before in zip(NUMBER.findall(found), NUMBER.findall(expected), strict=True):
        one, other = (float(n.replace("−", "-").replace(",", "")) for n in (now, before))
        assert one == pytest.approx(other, abs=1e-3, rel=1e-2), path


def test_the_table_is_the_reference(results):
    assert_same_rows(table_of(results), REFERENCE)
    assert len(rows_of(REFERENCE)) == 2 * (4 + 3 * 2)


def test_the_markdown_is_the_reference(results):
    assert_same_text(table_of(results).with_suffix(".md"), HERE / "table.md")


def test_the_comparison_is_the_reference(compared):
    assert_same_rows(compared / "against-magnitude.csv", HERE / "against-magnitude.csv")
    assert_same_text(compared / "against-magnitude.md", HERE / "against-magnitude.md")


def test_a_report_elsewhere_writes_the_same_table(results, compared):
    for ending in ("csv", "md"):
        again = (compared / f"table.{ending}").read_bytes()
        assert again == table_of(results).with_suffix(f".{ending}").read_bytes()


def test_the_reference_tells_criteria_and_ratios_apart():
    """Or the comparison above would show nothing."""
    losses = {
        (row["criterion"], row["ratio"]): float(row["loss_before_recovery_nats"])
        for row in rows_of(REFERENCE)
        if row["kind"] == "pruned" and row["seed"] == "1"
    }
    assert len(losses) == 6
    ordered = sorted(losses.values())
    assert min(b - a for a, b in pairwise(ordered)) > 1e-3


def test_the_same_sweep_again_runs_nothing_and_writes_the_same_bytes(text, results):
    before = table_of(results).read_bytes()
    said = sweep(text, results)
    assert "0 trained, 0 cells run, 20 reused" in said
    assert table_of(results).read_bytes() == before


def test_a_sweep_from_nothing_writes_the_same_bytes(text, results, tmp_path):
    sweep(text, tmp_path)
    for ending in ("csv", "md", "parquet"):
        again, before = (table_of(place).with_suffix(f".{ending}") for place in (tmp_path, results))
        assert again.read_bytes() == before.read_bytes(), ending


def test_one_more_ratio_is_one_cell_per_criterion_and_seed_and_no_training(text, results, tmp_path):
    shutil.copytree(results, tmp_path / "results")
    runs = tmp_path / "results" / "runs"
    trained = {path: path.stat().st_mtime_ns for path in runs.glob("train-*/*.safetensors")}
    said = sweep(text, tmp_path / "results", "ratios=0.3,0.5,0.6")
    assert "0 trained, 6 cells run, 20 reused" in said
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    assert len(list(runs.glob("cells/*/row.json"))) == 26
    new = [row for row in rows_of(table_of(tmp_path / "results")) if row["ratio"] == "0.5"]
    assert sorted((row["criterion"], row["seed"]) for row in new) == [
        (criterion, seed) for criterion in ("magnitude", "random", "swe") for seed in ("1", "2")
    ]


def test_changing_the_text_changes_the_name(tmp_path):
    names = []
    for seed in (1, 2, 1):
        adapter.begin_anew()
        text = write_text(tmp_path, words=200, seed=seed)
        command("train", *words_for(text), f"results_dir={tmp_path / str(len(names))}", "-q")
        names.append(newest(tmp_path / str(len(names)), "train").name)
    assert names[0] != names[1]
    assert names[0] == names[2]  # the same text again: the same name


def test_the_place_of_the_text_does_not_change_the_name(tmp_path):
    names = set()
    for folder in ("a", "b c=d"):
        (tmp_path / folder).mkdir()
        text = write_text(tmp_path / folder, words=200)
        command("train", *words_for(text), f"results_dir={tmp_path / folder}", "-q")
        names.add(newest(tmp_path / folder, "train").name)
    assert len(names) == 1


def test_a_missing_statistic_trains_again_says_so_and_changes_no_weight(text, tmp_path):
    words = words_for(text, "ratios=0.5", "recovery.steps=1", f"results_dir={tmp_path}")
    command("sweep", *words, "criteria=swe")
    run = newest(tmp_path, "train")
    before, losses = tensors_of(run), (run / "metrics.jsonl").read_text()
    table = rows_of(table_of(tmp_path))
    assert statistics_of(run) == ["weighted_average"]
    said = command("sweep", *words, "criteria=swe,swe_mean")
    assert f"{run.name} did not record mean: training it again" in said
    assert "1 trained, 1 cell run, 5 reused" in said
    after = tensors_of(run)
    assert statistics_of(run) == ["mean", "weighted_average"]
    for name in ("model.safetensors", "best.safetensors"):
        assert_same_tensors(after[name], before[name], name)
    assert (run / "metrics.jsonl").read_text() == losses
    kept = before["trajectory.safetensors"]
    assert_same_tensors({n: after["trajectory.safetensors"][n] for n in kept}, kept)
    rows = {row["config_hash"]: row for row in rows_of(table_of(tmp_path))}
    assert all(rows[row["config_hash"]] == row for row in table)
    assert "swe_mean" in {row["criterion"] for row in rows.values()}


def tensors_of(run: Path):
    return {path.name: load_file(path) for path in run.glob("*.safetensors")}


def statistics_of(run: Path) -> list[str]:
    return json.loads((run / "manifest.json").read_text())["tracker"]["statistics"]
