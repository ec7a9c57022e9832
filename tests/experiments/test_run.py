from dataclasses import replace

import pytest
import torch
from training.toys import gpt, opened, spec_of, sweep_of, swept, trained, write_text

from swe_cli.config import ConfigRoot
from swe_cli.controls import ASKED, KINDS
from swe_cli.errors import DataError, RunError
from swe_cli.evaluation.loss import by_window, mean_of, row_pass
from swe_cli.experiments import ensure, training
from swe_cli.experiments.cell import measured_beside, run_cell
from swe_cli.experiments.sweep import cells_of, controls_by
from swe_cli.experiments.training import stored_training
from swe_cli.files import read_tensors, write_json
from swe_cli.pruning.masks import sparsity
from swe_cli.pruning.shrink import load
from swe_cli.report.summary import summarise
from swe_cli.report.tables import frame
from swe_cli.store import Run

RECOVERY = ("recovery.steps=2", "training.steps=6")
TWICE = ("criteria=swe,magnitude", "ratios=0.0,0.5")


def planned(text, results, *words):
    return sweep_of(text, results, *RECOVERY, *words)


def trained_model(plan):
    return opened(plan.trainings[0].run)


@pytest.fixture(scope="module")
def finished(text, tmp_path_factory):
    """A finished sweep: its plan, and its rows by (kind, criterion, ratio)."""
    plan = planned(text, tmp_path_factory.mktemp("results"), *TWICE, "keep=models")
    return plan, {
        (row.kind, row.settings.get("criterion"), row.settings.get("ratio")): row
        for row in swept(plan).rows
    }


def test_every_row_is_there_and_complete(finished):
    _, rows = finished
    assert {kind for kind, _, _ in rows} == {*KINDS} - {"dense_blind", *ASKED}
    for row in rows.values():
        assert row.status == "done"
        for metric in ("loss", "delta"):
            mean, low, high = row.metrics[metric]
            assert low <= mean <= high
        recovered = row.kind in ("pruned", "dense_recovered")
        assert ("loss_before_recovery" in row.metrics) is recovered
        assert ("delta_recovered" in row.metrics) is (row.kind == "pruned")


def test_nothing_differs_from_itself(finished):
    _, rows = finished
    assert rows["dense", None, None].metrics["delta"] == (0.0, 0.0, 0.0)


def test_ratio_zero_is_the_dense_model_bit_for_bit_and_then_the_recovered_one(finished):
    _, rows = finished
    dense, recovered = rows["dense", None, None], rows["dense_recovered", None, None]
    for criterion in ("swe", "magnitude"):
        uncut = rows["pruned", criterion, 0.0]
        assert uncut.mean("loss_before_recovery") == dense.mean("loss")
        assert uncut.mean("delta_before_recovery") == 0.0
        assert uncut.mean("loss") == recovered.mean("loss")  # the same batches, the same dropout
        assert uncut.mean("delta_recovered") == 0.0
        assert uncut.mean("sparsity") == 0.0
    assert recovered.mean("loss_before_recovery") == dense.mean("loss")
    assert recovered.mean("loss") != dense.mean("loss")


def test_losses_are_those_of_the_models_that_were_kept(finished):
    plan, rows = finished
    trained = trained_model(plan)
    for cell in plan.cells:
        stored, row = read_tensors(cell.model_to), cell.row()
        trained.load(stored)
        windows = trained.dataset.windows("test", context=trained.model.context, size=64)
        losses = by_window(row_pass(trained, windows))
        assert mean_of(losses, "nats") == row.mean("loss")
        assert losses["nats"].tolist() == cell.windows()["nats"].tolist()
        zeros = sum(int((w == 0).sum()) for w in stored.values())
        assert row.mean("compression") == zeros / sum(w.numel() for w in stored.values())
    assert rows["pruned", "swe", 0.5].mean("compression") > 0.3


def test_controls_are_the_weights_they_are_named_after(finished):
    plan, _ = finished
    trained = trained_model(plan)
    for kind, base in (("dense", "final"), ("dense_best", "best"), ("dense_averaged", "averaged")):
        cell = next(p for p in plan.cells if p.kind == kind)
        kept, expected = read_tensors(cell.model_to), trained.weights(base)
        assert all(torch.equal(kept[name], expected[name]) for name in expected)


def test_holes_stay_holes_through_recovery(finished):
    plan, _ = finished
    cell = next(p for p in plan.cells if p.config.get("ratio") == 0.5)
    linear = trained_model(plan).model.prunable(read_tensors(cell.model_to), "linear")
    assert sparsity({name: weight != 0 for name, weight in linear.items()}) == 0.5
    assert cell.row().mean("sparsity") == 0.5


def test_on_the_averaged_weights_magnitude_and_swe_give_the_same_rows(text, tmp_path):
    rows = swept(planned(text, tmp_path, *TWICE, "base=averaged", "recovery.steps=0")).rows
    half = (row for row in rows if row.settings.get("ratio") == 0.5)
    by_criterion = {row.settings["criterion"]: row for row in half}
    swe, magnitude = by_criterion["swe"], by_criterion["magnitude"]
    assert swe.mean("jaccard_magnitude") == 1.0
    assert swe.mean("loss") == magnitude.mean("loss") == swe.mean("loss_before_recovery")
    averaged = next(row for row in rows if row.kind == "dense_averaged")
    uncut = next(row for row in rows if row.settings.get("ratio") == 0.0)
    assert uncut.mean("loss") == averaged.mean("loss")


def test_a_failed_cell_is_a_visible_row_and_is_tried_again(text, tmp_path, monkeypatch):
    plan = planned(text, tmp_path, *TWICE)

    def fail(cell, stop, callbacks):
        if cell.spec.settings().get("criterion") == "swe":
            raise ZeroDivisionError("by\nzero")
        return run_cell(cell, stop)

    monkeypatch.setattr("swe_cli.experiments.jobs.run_cell", fail)
    outcome = swept(plan)
    assert len(outcome.rows) == len(plan.cells)
    assert [row.settings["criterion"] for row in outcome.failed] == ["swe", "swe"]
    failed = outcome.failed[0]
    assert failed.error == "ZeroDivisionError: by zero"
    assert (failed.settings["ratio"], failed.metrics, failed.model) == (0.0, {}, "gpt_nano")
    lines = summarise(frame(outcome.rows)).lines
    assert sorted(line.criterion for line in lines) == ["magnitude", "swe"]
    done = next(row for row in outcome.rows if row.kind == "pruned" and row.status == "done")
    same = {**done.settings, "criterion": "swe"}
    assert failed.settings == same  # or the failure would be a line of its own
    monkeypatch.undo()
    again = swept(plan)
    assert again.failed == []
    assert (again.trained, again.ran, again.reused) == (0, 2, 6)


def test_what_is_compared_with_a_failed_control_fails_with_it_and_is_not_begun(
    text, tmp_path, monkeypatch
):
    plan, begun = planned(text, tmp_path, *TWICE), []

    def fail(cell, stop, callbacks):
        begun.append(cell.kind)
        if cell.kind == "dense_recovered":
            raise ZeroDivisionError("by zero")
        return run_cell(cell, stop)

    monkeypatch.setattr("swe_cli.experiments.jobs.run_cell", fail)
    outcome = swept(plan)
    assert sorted(begun) == ["dense", "dense_averaged", "dense_best", "dense_recovered"]
    assert {row.kind for row in outcome.failed} == {"dense_recovered", "pruned"}
    assert {row.error for row in outcome.failed} == {"ZeroDivisionError: by zero"}
    monkeypatch.undo()
    assert swept(plan).failed == []


def test_a_training_that_was_interrupted_while_it_was_repeated_does_not_serve(text, tmp_path):
    spec = spec_of(text, results=tmp_path)
    ensure.ensure_trained(spec)
    assert spec.done()
    (spec.run.path / "checkpoints").mkdir()
    assert not spec.done()
    assert ensure.ensure_trained(spec)
    assert spec.done()


def test_a_statistic_of_a_package_that_is_not_here_does_not_stop_another_training(text, tmp_path):
    spec, said = spec_of(text, statistics=(), results=tmp_path), []
    ensure.ensure_trained(spec)
    manifest = spec.run.manifest
    manifest["tracker"]["statistics"].append("travelled")
    write_json(spec.run.path / "manifest.json", manifest)

    class Listening(ensure.Observer):
        def say(self, text):
            said.append(text)

    more = spec_of(text, results=tmp_path)
    assert ensure.ensure_trained(more, Listening())
    assert said[-1] == "It will no longer hold travelled, not known here."
    assert spec.run.manifest["tracker"]["statistics"] == ["mean", "weighted_average"]


def test_of_a_model_of_one_role_all_is_that_role(text, tmp_path):
    plan = planned(text, tmp_path, "ratios=0.5", "criteria=swe", "roles=language,all")
    assert sum(p.kind == "pruned" for p in plan.cells) == 1


def test_a_training_that_was_repeated_is_loaded_anew(text, tmp_path):
    """One process may train for one more statistic after it has already cut."""
    swept(planned(text, tmp_path, "criteria=swe", "ratios=0.5"))
    outcome = swept(planned(text, tmp_path, "criteria=swe,swe_mean", "ratios=0.5"))
    assert outcome.failed == []
    assert outcome.trained == 1


def test_a_cell_without_its_windows_is_not_done(text, tmp_path):
    plan = planned(text, tmp_path, "ratios=0.5", "criteria=swe")
    rows = swept(plan).rows
    (plan.cells[0].folder / "windows.safetensors").unlink()
    assert not plan.cells[0].done()
    again = swept(plan)
    assert (again.ran, again.reused) == (1, 4)
    assert again.rows == rows


def test_times_and_host_are_beside_the_rows_and_not_in_them(finished):
    plan, rows = finished
    for cell in plan.cells:
        line = measured_beside(cell.folder)
        assert line["host"]
        assert line["evaluation.seconds"] > 0
        assert line["load.cpu_seconds"] >= 0
        assert not any(line.keys() & row.columns().keys() for row in rows.values())
    manifest = plan.trainings[0].run.manifest
    assert 0 < manifest["tracking_seconds_per_step"] < manifest["seconds_per_step"]


# A stored run


def test_an_unfinished_run_has_nothing_to_cut(tmp_path):
    run = Run(tmp_path / "runs" / "train-x-1")
    run.begin({"identity": {}, "paths": {}})
    with pytest.raises(RunError, match="train-x-1 is stopped"):
        opened(run)


def test_a_text_that_changed_under_a_run_is_refused(tmp_path):
    text = write_text(tmp_path, words=300, seed=1)
    run = trained(spec_of(text), tmp_path)
    training._dataset.cache_clear()  # a new process
    write_text(tmp_path, words=300, seed=2)
    with pytest.raises(DataError, match=f"The data of {run.name} has changed"):
        opened(run)
    training._dataset.cache_clear()


def test_weights_of_another_model_are_refused():
    with pytest.raises(RunError, match="weights of x are not those"):
        load(gpt(5, layers=2), gpt(5).weights(), "x")


def test_a_cell_says_where_it_is_without_running(finished):
    plan, _ = finished
    cell = plan.cells[-1]
    assert cell.done()
    assert cell.folder == plan.trainings[0].run.path.parent / "cells" / cell.hash
    assert not replace(cell, model_to=cell.folder / "missing").done()


def test_a_training_that_diverges_fails_its_own_rows_only(text, tmp_path):
    words = ("training.learning_rate=1e-3,1e30", "criteria=magnitude", "ratios=0.5")
    outcome = swept(planned(text, tmp_path, *words))
    failed = {row.axes["training.learning_rate"] for row in outcome.failed}
    assert failed == {1e30}
    assert "step" in outcome.failed[0].error
    assert len(outcome.rows) == 2 * len(outcome.failed)


def test_a_moved_text_is_the_same_training_and_is_followed(text, tmp_path):
    swept(planned(text, tmp_path, "criteria=magnitude", "ratios=0.5"))
    moved = tmp_path / "moved.txt"
    moved.write_bytes(text.read_bytes())
    plan = planned(moved, tmp_path, "criteria=magnitude", "ratios=0.5,0.6")
    outcome = swept(plan)
    assert (outcome.trained, outcome.ran) == (0, 1)
    stored = plan.trainings[0].run.config["paths"]
    assert stored == {"data.path": str(moved)}


def test_another_machine_is_another_cell(finished):
    plan, _ = finished
    cell = plan.cells[-1]

    def pruned_on(threads):
        training = stored_training(cell.training.run, ConfigRoot(), threads=threads)
        controls = controls_by(cell.spec, training, False, {})
        return cells_of(cell.spec, training, controls)["pruned"]

    threads = cell.training.config["identity"]["machine"]["threads"]
    assert pruned_on(None).hash == pruned_on(threads).hash == cell.hash
    assert pruned_on(threads + 1).hash != cell.hash
