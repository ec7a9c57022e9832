"""The multimodal path as one types it: train, prune, evaluate, sweep, report, ask."""

import csv
import json

import pytest

pytest.importorskip("sklearn", reason="the optional package scikit-learn is missing")
Image = pytest.importorskip("PIL.Image", reason="the optional package Pillow is missing")

TINY = (
    "model=llava_nano",
    "model.vision.layers=1",
    "model.vision.width=16",
    "model.language.layers=1",
    "model.language.width=16",
    "tokenizer=words",
    "training.steps=30",
    "training.batch_size=16",
    "training.learning_rate=3e-3",
    "training.evaluate_every=15",
)
SUMS = (
    *TINY,
    "data=digit_sums",
    "data.train_examples=400",
    "data.validation_examples=20",
    "data.test_examples=60",
)


def rows_of(results):
    (path,) = results.glob("runs/sweep-*/table.csv")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_over_roles_tells_which_tower_was_cut(swe, tmp_path):
    words = ("roles=vision,projector,language,all", "ratios=0.5", "criteria=swe,random")
    found = swe("sweep", "-q", *SUMS, *words, "recovery.steps=1")
    assert found.exit_code == 0, found.output
    rows = rows_of(tmp_path / "results")
    controls = {row["kind"] for row in rows if row["kind"] != "pruned"}
    assert controls == {
        *("dense", "dense_best", "dense_recovered", "dense_averaged", "dense_blind")
    }
    pruned = {(row["criterion"], row["roles"]): row for row in rows if row["kind"] == "pruned"}
    assert len(pruned) == 8
    for (_, roles), row in pruned.items():
        cut = {r for r in ("vision", "projector", "language") if row[f"sparsity.{r}"]}
        assert cut == ({"vision", "projector", "language"} if roles == "all" else {roles})
        assert float(row["sparsity"]) == pytest.approx(0.5, abs=0.01)
        for name in ("accuracy", "mae", "rmse", "unparsable", "delta_accuracy", "delta_mae"):
            assert row[name], name
        assert 0 <= float(row["accuracy_low"]) <= float(row["accuracy"])
        assert float(row["rmse"]) >= float(row["mae"]) >= 0
        assert not row["perplexity"]
        assert not row["bits_per_character"]
    assert float(pruned["swe", "all"]["compression"]) > float(
        pruned["swe", "projector"]["compression"]
    )
    (dense,) = (row for row in rows if row["kind"] == "dense")
    assert float(dense["delta_accuracy"]) == 0.0
    assert float(dense["mae_median"]) > 0
    run = next((tmp_path / "results" / "runs").glob("train-*"))
    report = swe("report", run.name)
    assert report.exit_code == 0, report.output


def test_what_was_frozen_and_tracked_is_drawn_too(swe, tmp_path):
    frozen = ("training.trains=[projector]", "tracking.frozen=true")
    cut = ("criteria=swe", "ratios=0.5", "recovery=none", "roles=vision")
    found = swe("sweep", "-q", *SUMS, *frozen, *cut)
    assert found.exit_code == 0, found.output
    (figure,) = tmp_path.glob("results/runs/sweep-*/figures/weights.png")
    assert figure.stat().st_size > 5000


def test_a_pruned_run_still_says_what_was_cut_where(swe, tmp_path):
    assert swe("train", "-q", *SUMS).exit_code == 0
    cut = ("--ratio", "0.5", "roles=vision", "recovery=none")
    assert "sparsity.vision" in swe("prune", "-q", *cut).output
    (pruned,) = tmp_path.glob("results/runs/prune-*")
    assert "sparsity.vision" in swe("evaluate", pruned.name).output


def test_a_role_of_another_model_is_one_sentence_before_any_work(swe, tmp_path):
    found = swe("sweep", *SUMS, "roles=visoin", "ratios=0.5")
    assert found.exit_code == 2
    assert "roles: this model has no visoin" in found.output
    found = swe("sweep", "roles=vision", "ratios=0.5")
    assert found.exit_code == 2
    assert not list(tmp_path.glob("results/runs/train-*"))


def test_a_model_that_looks_wants_images(swe):
    found = swe("train", "model=llava_nano")
    assert found.exit_code == 2
    assert "the data set has none" in found.output


def test_a_text_model_reads_the_questions_blindly(swe):
    words = [word for word in SUMS if not word.startswith("model")]
    small = ("model.layers=1", "model.heads=2", "model.width=16", "model.context=24")
    found = swe("train", "-q", *words, *small)
    assert found.exit_code == 0, found.output


def folder_of(path, images=64):
    """Images that are all red or all blue, and what colour they are."""
    path.mkdir()
    lines = []
    for index in range(images):
        colour = ("red", "blue")[index % 2]
        Image.new("RGB", (20, 12 + index % 3), colour).save(path / f"{index}.png")
        question = {"image": f"{index}.png", "question": "what color is it?", "answer": colour}
        lines.append(json.dumps(question))
    (path / "questions.jsonl").write_text("\n".join(lines))
    return path


def test_a_folder_of_images_trains_end_to_end(swe, tmp_path):
    folder = folder_of(tmp_path / "my pictures")
    data = ("data=image_folder", f"data.path={folder}", "data.image_size=16")
    trained = swe("train", *TINY, *data, "training.steps=60", "training.evaluate_every=60")
    assert trained.exit_code == 0, trained.output
    said = " ".join(trained.output.split())
    assert said.count("64 of 64 images are not 16×16") == 1
    assert swe("prune", "--ratio", "0.2", "recovery.steps=2").exit_code == 0
    evaluated = swe("evaluate")
    assert evaluated.exit_code == 0, evaluated.output
    answered = swe("generate", "--image", folder / "1.png", "--prompt", "what color is it?")
    assert answered.exit_code == 0, answered.output
    assert "blue" in answered.output
    assert "red" not in answered.output
    missing = swe("generate", "--image", folder / "no.png", "--prompt", "what color is it?")
    assert missing.exit_code == 1
    assert "no.png cannot be read" in missing.output
    blind = swe("generate", "--prompt", "what color is it?")
    assert blind.exit_code == 2
    assert "--image FILE" in blind.output
