"""Folders that version 0.1 wrote: they open, and what lies in them is not made again."""

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from .conftest import HERE, command

TINY = (
    *("threads=1", "device=cpu", "data=kjv_chars", "data.train_characters=2000"),
    *("data.validation_characters=300", "data.test_characters=600", "model.layers=1"),
    *("model.heads=2", "model.width=16", "model.context=16", "training.batch_size=2"),
)
# As typed when results-0.1 was made.
TRAINING = (
    *TINY,
    *("training.steps=6", "training.warmup_steps=2", "training.evaluate_every=3"),
    *("tracking.sample=20", "tracking.snapshots=[2]"),
)
SWEEP = (*TRAINING, "criteria=swe,magnitude", "ratios=0.3,0.6", "recovery.steps=2")
TRAIN, PRUNED = "train-gpt_nano-789ef79e", "prune-gpt_nano-swe-b01fd05b"
SWEPT = "sweep-gpt_nano-21072838"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A copy of the old results, where the commands look."""
    return Path(shutil.copytree(HERE / "results-0.1", tmp_path / "results"))


def state_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def rows_of(results: Path) -> dict[str, dict[str, str]]:
    """What is cut at which ratio → its row."""
    with (results / "runs" / SWEPT / "table.csv").open(newline="") as file:
        return {" ".join((r["kind"], r["criterion"], r["ratio"])): r for r in csv.DictReader(file)}


def test_they_are_listed(results: Path) -> None:
    said = command("runs")
    assert all(name in said for name in (TRAIN, PRUNED, SWEPT))


def test_the_same_training_again_is_there_already(results: Path) -> None:
    before = state_of(results / "runs" / TRAIN)
    assert TRAIN in command("train", *TRAINING)
    after = state_of(results / "runs" / TRAIN)
    assert {name: after[name] for name in before} == before


def test_the_same_sweep_again_runs_nothing_and_writes_the_same_bytes(results: Path) -> None:
    table = results / "runs" / SWEPT / "table.csv"
    before = table.read_bytes()
    table.unlink()
    said = command("sweep", *SWEEP)
    assert f"{SWEPT}: 0 trained, 0 cells run, 8 reused" in said
    assert table.read_bytes() == before


def test_rows_that_are_uncalibrated_are_counted_and_filled_when_asked(results: Path) -> None:
    before = {name: row["loss_nats"] for name, row in rows_of(results).items()}
    assert "8 rows of an older version: no calibrated loss" in command("report", SWEPT)
    assert "0 cells run, 8 reused" in command("sweep", *SWEEP)
    assert "loss_calibrated_nats" not in rows_of(results)["dense  "]
    said = command("sweep", *SWEEP, "--refresh")
    assert f"{SWEPT}: 0 trained, 8 cells run, 0 reused" in said
    assert "of an older version" not in said
    for name, row in rows_of(results).items():
        assert float(row["loss_nats"]) == pytest.approx(float(before[name]), abs=1e-3)
        assert float(row["loss_calibrated_nats"]) <= float(row["loss_nats"]) + 0.05
        if row["kind"] == "pruned":
            assert row["delta_recovered_calibrated_nats"]
    assert "0 cells run, 8 reused" in command("sweep", *SWEEP, "--refresh")


def test_a_new_row_beside_old_controls_is_refreshed_with_them(results: Path) -> None:
    """It had a calibrated loss already, and nothing to hold it against."""
    ratios = (*SWEEP[:-2], "ratios=0.3,0.5", SWEEP[-1])
    assert "1 cell run" in command("sweep", *ratios)
    command("sweep", *ratios, "--refresh")
    tables = [p / "table.csv" for p in (results / "runs").glob("sweep-*") if p.name != SWEPT]
    with tables[0].open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "pruned"]
    assert len(rows) == 4
    assert all(row["delta_recovered_calibrated_nats"] for row in rows)


def test_the_same_cut_again_is_reused(results: Path) -> None:
    cell = results / "runs" / "cells" / "b01fd05bd5ea400f"
    before = state_of(cell)
    words = ("--ratio", "0.5", "recovery.steps=2", "device=cpu", "threads=1")
    assert PRUNED in command("prune", TRAIN, *words)
    assert state_of(cell) == before


@pytest.mark.parametrize("words", [(), (SWEPT,), (SWEPT, "--against", "magnitude")])
def test_a_sweep_is_reported(results: Path, words: tuple[str, ...]) -> None:
    table = results / "runs" / SWEPT / "table.csv"
    before = table.read_bytes()
    assert "against dense recovered, the best control" in command("report", *words)
    said = command("report", *words, "--format", "csv")
    assert table.read_bytes() == before
    assert all(row["loss_nats"] in said for row in rows_of(results).values())


@pytest.mark.parametrize("name", [TRAIN, PRUNED])
def test_every_cut_of_a_training_is_reported(results: Path, name: str) -> None:
    command("report", name)
    with (results / "runs" / TRAIN / "report" / "table.csv").open(newline="") as file:
        assert len([*csv.DictReader(file)]) == 9


def test_they_are_measured_again(results: Path) -> None:
    dense = float(rows_of(results)["dense  "]["loss_nats"])
    (said, *_) = re.findall(r"loss (\d+\.\d+) nats", command("evaluate", TRAIN, "device=cpu"))
    assert float(said) == pytest.approx(dense, abs=1e-3)
    row = json.loads((results / "runs" / PRUNED / "manifest.json").read_text())["row"]
    (said, *_) = re.findall(r"loss (\d+\.\d+) nats", command("evaluate", PRUNED, "device=cpu"))
    assert float(said) == pytest.approx(row["loss_nats"], abs=1e-3)


@pytest.mark.parametrize("name", [TRAIN, PRUNED])
def test_they_generate(results: Path, name: str) -> None:
    said = command("generate", name, "--prompt", "God", "--length", "5", "device=cpu")
    assert "God" in said


def test_a_snapshot_is_cut_and_trained_on(results: Path) -> None:
    words = ("schedule=early", "schedule.at_step=2", "criterion=magnitude", "ratio=0.5")
    said = command("sweep", *TRAINING, *words, "recovery.steps=2")
    assert "0 trained, 1 cell run, 4 reused" in said


# A training that was stopped

STOPPED = (
    *TINY,
    *("model.dropout=0.2", "training.accumulation=2", "training.steps=8"),
    *("training.warmup_steps=3", "training.evaluate_every=3", "training.checkpoint_every=2"),
    "tracking.sample=20",
)
STOPPED_AT = 5
RUN = Path("runs") / "train-gpt_nano-5855aedc"
CHECKPOINT = RUN / "checkpoints" / f"step-{STOPPED_AT:08d}"
RESULT = {"model": "model", "optimizer": "model", "tracker": "trajectory", "best": "best"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training, never stopped."""
    results = tmp_path_factory.mktemp("whole") / "results"
    command("train", "-q", *STOPPED, f"results_dir={results}")
    return results


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    return Path(shutil.copytree(HERE / "checkpoint-0.1", tmp_path / "results"))


def difference(one: Path, other: Path, name: str) -> float:
    """The largest difference of any number in a file of both runs."""
    first, second = (load_file(of / RUN / f"{name}.safetensors") for of in (one, other))
    assert first.keys() == second.keys()
    return max(float((first[key].double() - second[key].double()).abs().max()) for key in first)


def test_a_stopped_training_resumes_and_ends_as_if_it_had_not_been(
    stopped: Path, whole: Path
) -> None:
    metrics = stopped / RUN / "metrics.jsonl"
    before = [json.loads(line) | {"seen": "before"} for line in metrics.read_text().splitlines()]
    metrics.write_text("".join(json.dumps(line) + "\n" for line in before))
    command("train", "-q", *STOPPED)
    after = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [line["step"] for line in after] == [*range(1, 9)]
    assert ["seen" in line for line in after] == [step <= STOPPED_AT for step in range(1, 9)]
    for name in ("model", "best", "trajectory"):
        assert difference(stopped, whole, name) < 1e-5, name
    assert not (stopped / CHECKPOINT).exists()


@pytest.mark.parametrize("name", RESULT)
def test_every_file_of_a_checkpoint_is_read(name: str, stopped: Path, whole: Path) -> None:
    """What is changed in it shows at the end; else the test above would show little."""
    path = stopped / CHECKPOINT / f"{name}.safetensors"
    tensors = load_file(path)
    changed = {k: v + 0.1 if v.dtype == torch.float32 else v for k, v in tensors.items()}
    if name == "optimizer":  # moments, not counts of steps
        changed = {k: v if k.endswith("step") else changed[k] for k, v in tensors.items()}
    save_file(changed, path)
    state = stopped / CHECKPOINT / "state.json"
    content = json.loads(state.read_text())
    content["files"][path.name] = sha256(path)
    content["progress"]["best_loss_nats"] = 0.0  # nothing later is better
    state.write_text(json.dumps(content))
    command("train", "-q", *STOPPED)
    assert difference(stopped, whole, RESULT[name]) > 1e-4


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
