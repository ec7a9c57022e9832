from dataclasses import replace

import pytest
import torch
from training.toys import Silent, gpt, never, plan_of, trained, words_for, write_text

from swe_cli.compose import ConfigRoot, read_tokens
from swe_cli.errors import DataError, RunError
from swe_cli.evaluation.loss import window_losses
from swe_cli.files import read_tensors
from swe_cli.masks.masks import sparsity
from swe_cli.pruning.shrink import load
from swe_cli.records import CONTROLS
from swe_cli.reporting.aggregate import summarise
from swe_cli.runs import Run
from swe_cli.sweeps import build, cells
from swe_cli.sweeps.cells import run_cell
from swe_cli.sweeps.execute import execute, timings
from swe_cli.sweeps.plan import cells_of, plan_sweep
from swe_cli.sweeps.subject import load_subject

RECOVERY = ("recovery.steps=2", "training.steps=6")
TWICE = ("criteria=swe,magnitude", "ratios=0.0,0.5")


def planned(text, results, *words):
    return plan_sweep(read_tokens(words_for(text, *RECOVERY, *words)), ConfigRoot(), results)


def executed(plan, results):
    return execute(plan, results, Silent(), never, resume="")


@pytest.fixture(scope="module")
def swept(text, tmp_path_factory):
    """A finished sweep: its plan, its results and its rows by (kind, criterion, ratio)."""
    results = tmp_path_factory.mktemp("results")
    plan = planned(text, results, *TWICE, "keep=models")
    rows = executed(plan, results).rows
    return plan, results, {(row.kind, row.criterion, row.ratio): row for row in rows}


def test_every_row_is_there_and_complete(swept):
    _, _, rows = swept
    assert {kind for kind, _, _ in rows} == {"dense", *CONTROLS, "pruned"} - {"dense_blind"}
    for row in rows.values():
        assert row.status == "done"
        assert row.loss_low <= row.loss_nats <= row.loss_high
        assert row.delta_low <= row.delta_nats <= row.delta_high
        recovered = row.kind in ("pruned", "dense_recovered")
        assert (row.loss_before_recovery_nats is not None) is recovered
        assert (row.delta_recovered_nats is not None) is (row.kind == "pruned")


def test_nothing_differs_from_itself(swept):
    _, _, rows = swept
    dense = rows["dense", None, None]
    assert (dense.delta_nats, dense.delta_low, dense.delta_high) == (0.0, 0.0, 0.0)


def test_ratio_zero_is_the_dense_model_bit_for_bit_and_then_the_recovered_one(swept):
    _, _, rows = swept
    dense, recovered = rows["dense", None, None], rows["dense_recovered", None, None]
    for criterion in ("swe", "magnitude"):
        uncut = rows["pruned", criterion, 0.0]
        assert uncut.loss_before_recovery_nats == dense.loss_nats
        assert uncut.delta_before_recovery_nats == 0.0
        assert uncut.loss_nats == recovered.loss_nats  # the same batches, the same dropout
        assert uncut.delta_recovered_nats == 0.0
        assert uncut.sparsity == 0.0
    assert recovered.loss_before_recovery_nats == dense.loss_nats
    assert recovered.loss_nats != dense.loss_nats


def test_losses_are_those_of_the_models_that_were_kept(swept):
    plan, results, rows = swept
    subject = load_subject(plan.trainings[0].run(results), ConfigRoot())
    for cell in (planned.cell for planned in plan.cells):
        model = subject.load(read_tensors(cell.model_to))
        windows = subject.dataset.windows("test", context=model.context, size=64)
        losses = window_losses(model, windows, machine=subject.machine)
        row = cell.row()
        assert losses.mean_nats == row.loss_nats
        assert losses.nats.tolist() == cell.windows().losses.nats.tolist()
        zeros = sum(int((w == 0).sum()) for w in read_tensors(cell.model_to).values())
        total = sum(w.numel() for w in read_tensors(cell.model_to).values())
        assert row.compression == zeros / total
    assert rows["pruned", "swe", 0.5].compression > 0.3


def test_controls_are_the_weights_they_are_named_after(swept):
    plan, results, _ = swept
    subject = load_subject(plan.trainings[0].run(results), ConfigRoot())
    for kind, base in (("dense", "final"), ("dense_best", "best"), ("dense_averaged", "averaged")):
        cell = next(p.cell for p in plan.cells if p.cell.kind == kind)
        kept, expected = read_tensors(cell.model_to), subject.weights(base)
        assert all(torch.equal(kept[name], expected[name]) for name in expected)


def test_holes_stay_holes_through_recovery(swept):
    plan, results, _ = swept
    subject = load_subject(plan.trainings[0].run(results), ConfigRoot())
    cell = next(
        p.cell for p in plan.cells if p.cell.kind == "pruned" and p.cell.config["ratio"] == 0.5
    )
    linear = subject.model.prunable(read_tensors(cell.model_to), "linear")
    assert sparsity({name: weight != 0 for name, weight in linear.items()}) == 0.5
    assert cell.row().sparsity == 0.5


def test_on_the_averaged_weights_magnitude_and_swe_give_the_same_rows(text, tmp_path):
    rows = executed(
        planned(text, tmp_path, *TWICE, "base=averaged", "recovery.steps=0"), tmp_path
    ).rows
    by_criterion = {row.criterion: row for row in rows if row.ratio == 0.5}
    swe, magnitude = by_criterion["swe"], by_criterion["magnitude"]
    assert swe.jaccard_magnitude == 1.0
    assert swe.loss_nats == magnitude.loss_nats == swe.loss_before_recovery_nats
    averaged = next(row for row in rows if row.kind == "dense_averaged")
    uncut = next(row for row in rows if row.ratio == 0.0)
    assert uncut.loss_nats == averaged.loss_nats


def test_a_failed_cell_is_a_visible_row_and_is_tried_again(text, tmp_path, monkeypatch):
    plan = planned(text, tmp_path, *TWICE)

    def fail(cell, watch):
        if cell.kind == "pruned" and cell.config["criterion"]["name"] == "swe":
            raise ZeroDivisionError("by\nzero")
        return run_cell(cell, watch)

    monkeypatch.setattr("swe_cli.sweeps.execute.run_cell", fail)
    outcome = executed(plan, tmp_path)
    assert len(outcome.rows) == len(plan.cells)
    assert [row.criterion for row in outcome.failed] == ["swe", "swe"]
    failed = outcome.failed[0]
    assert failed.error == "ZeroDivisionError: by zero"
    assert (failed.ratio, failed.loss_nats, failed.model) == (0.0, None, "gpt_nano")
    assert {line.criterion for line in summarise(outcome.rows).lines} == {"magnitude", "swe"}
    done = next(row for row in outcome.rows if row.kind == "pruned" and row.status == "done")
    assert failed.roles == done.roles  # or the failure would be a line of its own
    monkeypatch.undo()
    again = executed(plan, tmp_path)
    assert again.failed == []
    assert (again.trained, again.ran, again.reused) == (0, 2, 6)


def test_of_a_model_of_one_role_all_is_that_role(text, tmp_path):
    plan = planned(text, tmp_path, "ratios=0.5", "criteria=swe", "roles=language,all")
    assert sum(p.cell.kind == "pruned" for p in plan.cells) == 1


def test_a_training_that_was_repeated_is_loaded_anew(text, tmp_path):
    """One process may train for one more statistic after it has already cut."""
    executed(planned(text, tmp_path, "criteria=swe", "ratios=0.5"), tmp_path)
    plan = planned(text, tmp_path, "criteria=swe,swe_mean", "ratios=0.5")
    outcome = executed(plan, tmp_path)
    assert outcome.failed == []
    assert outcome.trained == 1


def test_a_cell_without_its_windows_is_not_done(text, tmp_path):
    plan = planned(text, tmp_path, "ratios=0.5", "criteria=swe")
    rows = executed(plan, tmp_path).rows
    (plan.cells[0].cell.folder / "windows.safetensors").unlink()
    assert not plan.cells[0].cell.done
    again = executed(plan, tmp_path)
    assert (again.ran, again.reused) == (1, 4)
    assert again.rows == rows


def test_times_and_host_are_not_in_the_rows(swept):
    plan, results, rows = swept
    lines = timings(plan, results)
    assert len(lines) == 1 + len(plan.cells)
    assert lines[0]["training_seconds"] > 0
    assert all(line["host"] for line in lines)
    assert {line["name"] for line in lines[1:]} == {row.config_hash for row in rows.values()}


# A stored run


def test_an_unfinished_run_has_nothing_to_cut(tmp_path):
    run = Run(tmp_path / "runs" / "train-x-1")
    run.begin({"identity": {}, "paths": {}})
    with pytest.raises(RunError, match="train-x-1 is stopped"):
        load_subject(run, ConfigRoot())


def test_a_text_that_changed_under_a_run_is_refused(tmp_path):
    text = write_text(tmp_path, words=300, seed=1)
    run = trained(plan_of(text), tmp_path)
    build._dataset.cache_clear()  # a new process
    write_text(tmp_path, words=300, seed=2)
    with pytest.raises(DataError, match=f"The data of {run.name} has changed"):
        load_subject(run, ConfigRoot())
    build._dataset.cache_clear()


def test_weights_of_another_model_are_refused():
    weights = {name: p.detach() for name, p in gpt(5).named_parameters()}
    with pytest.raises(RunError, match="weights of x are not those"):
        load(gpt(5, layers=2), weights, "x")


def test_a_cell_says_where_it_is_without_running(swept):
    plan, results, _ = swept
    cell = plan.cells[-1].cell
    assert cell.done
    assert cell.folder == results / "runs" / "cells" / cell.hash
    assert not replace(cell, model_to=results / "missing").done
    assert cells._written(results / "nowhere") == 0


def test_a_training_that_diverges_fails_its_own_rows_only(text, tmp_path):
    words = ("training.learning_rate=1e-3,1e30", "criteria=magnitude", "ratios=0.5")
    outcome = executed(planned(text, tmp_path, *words), tmp_path)
    failed = {row.axes["training.learning_rate"] for row in outcome.failed}
    assert failed == {1e30}
    assert "step" in outcome.failed[0].error
    assert len(outcome.rows) == 2 * len(outcome.failed)


def test_a_moved_text_is_the_same_training_and_is_followed(text, tmp_path):
    executed(planned(text, tmp_path, "criteria=magnitude", "ratios=0.5"), tmp_path)
    moved = tmp_path / "moved.txt"
    moved.write_bytes(text.read_bytes())
    plan = planned(moved, tmp_path, "criteria=magnitude", "ratios=0.5,0.6")
    outcome = executed(plan, tmp_path)
    assert (outcome.trained, outcome.ran) == (0, 1)
    stored = plan.trainings[0].run(tmp_path).config["paths"]
    assert stored == {"data.path": str(moved)}


def test_another_machine_is_another_cell(swept):
    plan, _, _ = swept
    training = plan.trainings[0]
    described = {**dict(plan.cells[-1].cell.config)}
    trained_on = training.config["identity"]["machine"]

    def pruned_on(threads):
        machine = {"device": "cpu", "threads": threads}
        path = plan.cells[-1].cell.training
        return cells_of(described, training.hash, path, ConfigRoot(), machine, trained_on)["pruned"]

    assert pruned_on(None).hash == pruned_on(trained_on["threads"]).hash
    assert pruned_on(trained_on["threads"] + 1).hash != pruned_on(None).hash
