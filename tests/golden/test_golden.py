"""A tiny train → sweep → table. Refactors keep it; who means to change a number says so here.

To renew the reference after such a change: the failing test names the new table; look at what
changed in it, copy it over ``table.csv``, and say why in docs/LOG.md.
"""

import csv
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from training.toys import assert_same_tensors, contents, words_for, write_text
from typer.testing import CliRunner

from swe_cli.app import app
from swe_cli.records import COLUMNS
from swe_cli.runs import find_run, list_runs
from swe_cli.sweeps import build

REFERENCE = Path(__file__).with_name("table.csv")
# Names, hashes and asked amounts are exact; what a processor rounds differently is not.
TOLERANCE = dict.fromkeys(
    [name for name in COLUMNS if name.startswith(("loss_", "delta_", "bits_"))], 1e-3
) | {"perplexity": 1e-2, "compression": 1e-3, "jaccard_magnitude": 1e-2}
LEARNING = ("model.dropout=0.0", "training.steps=40", "training.learning_rate=0.01")
SWEEP = (
    *LEARNING,
    "criteria=swe,magnitude,random",
    "seeds=1,2",
    "recovery.steps=3",
)


@pytest.fixture(scope="module", autouse=True)
def no_figures():
    """Tables are what is compared here; drawing takes longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("swe_cli.commands.present.write_figure", lambda *_: [], raising=False)
        yield


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"), words=300)


def swe(*words) -> str:
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 0, done.output
    return done.output


def sweep(text, results, ratios="ratios=0.3,0.6") -> str:
    return swe("sweep", *words_for(text, *SWEEP, ratios), f"results_dir={results}")


def table_of(results) -> Path:
    return list_runs(results, ("sweep",))[0].path / "table.csv"  # the newest


@pytest.fixture(scope="module")
def results(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    said = sweep(text, folder)
    assert "2 trained, 20 cells run, 0 reused" in " ".join(said.split())
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_is_the_reference(results):
    found, expected = rows_of(table_of(results)), rows_of(REFERENCE)
    assert list(found[0]) == list(expected[0]) == list(COLUMNS)
    assert len(found) == len(expected) == 2 * (4 + 3 * 2)
    for line, (row, reference) in enumerate(zip(found, expected, strict=True)):
        for column, value in reference.items():
            where = f"line {line}, {column} of {table_of(results)}"
            if column in TOLERANCE and value:
                wanted = pytest.approx(float(value), abs=TOLERANCE[column])
                assert float(row[column]) == wanted, where
            else:
                assert row[column] == value, where


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
    assert "0 trained, 0 cells run, 20 reused" in " ".join(said.split())
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
    assert "0 trained, 6 cells run, 20 reused" in " ".join(said.split())
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    assert len(list(runs.glob("cells/*/row.json"))) == 26
    new = [row for row in rows_of(table_of(tmp_path / "results")) if row["ratio"] == "0.5"]
    assert sorted((row["criterion"], row["seed"]) for row in new) == [
        (criterion, seed) for criterion in ("magnitude", "random", "swe") for seed in ("1", "2")
    ]


def test_changing_the_text_changes_the_name(tmp_path):
    names = []
    for seed in (1, 2, 1):
        build._dataset.cache_clear()  # a new process
        text = write_text(tmp_path, words=200, seed=seed)
        swe("train", *words_for(text), f"results_dir={tmp_path / str(len(names))}", "-q")
        names.append(find_run("train", tmp_path / str(len(names))).name)
    assert names[0] != names[1]
    assert names[0] == names[2]  # the same text again: the same name


def test_the_place_of_the_text_does_not_change_the_name(tmp_path):
    names = set()
    for folder in ("a", "b c=d"):
        (tmp_path / folder).mkdir()
        text = write_text(tmp_path / folder, words=200)
        swe("train", *words_for(text), f"results_dir={tmp_path / folder}", "-q")
        names.add(find_run("train", tmp_path / folder).name)
    assert len(names) == 1


def test_a_missing_statistic_trains_again_says_so_and_changes_no_weight(text, tmp_path):
    words = words_for(text, "ratios=0.5", "recovery.steps=1", f"results_dir={tmp_path}")
    swe("sweep", *words, "criteria=swe")
    run = find_run("train", tmp_path)
    before, losses = contents(run)
    table = rows_of(table_of(tmp_path))
    assert run.manifest["tracker"]["statistics"] == ["weighted_average"]
    said = " ".join(swe("sweep", *words, "criteria=swe,swe_mean").split())
    assert f"{run.name} did not record mean: training it again" in said
    assert "1 trained, 1 cell run, 5 reused" in said
    after, losses_again = contents(run)
    assert run.manifest["tracker"]["statistics"] == ["mean", "weighted_average"]
    for name in ("model.safetensors", "best.safetensors"):
        assert_same_tensors(after[name], before[name], name)
    assert losses_again == losses
    kept = before["trajectory.safetensors"]
    assert_same_tensors({n: after["trajectory.safetensors"][n] for n in kept}, kept)
    rows = {row["config_hash"]: row for row in rows_of(table_of(tmp_path))}
    assert all(rows[row["config_hash"]] == row for row in table)
    assert "swe_mean" in {row["criterion"] for row in rows.values()}
