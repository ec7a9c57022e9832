"""Cuts in rounds, in the middle of training, by what finds its own sparsity; the second stage."""

import pytest
import torch
from training import toys
from training.toys import contents, opened, spec_of, sweep_of, trained

from swe_cli.config import ConfigRoot, component, shipped_conf
from swe_cli.contracts import LayerCriterion
from swe_cli.errors import RunError, UsageError
from swe_cli.experiments.cell import execute
from swe_cli.experiments.spec import built
from swe_cli.files import read_json, read_tensors
from swe_cli.training.run import snapshot_path

SHORT = ("training.steps=6", "keep=models")


@pytest.fixture
def swept(text, results):
    """Run a sweep; what it planned, and its rows of cut models."""

    def run(*words):
        steps = () if "recovery=none" in words else ("recovery.steps=4",)
        plan = sweep_of(text, results, *SHORT, *steps, *words)
        outcome = toys.swept(plan)
        assert not outcome.failed, outcome.failed[0].error
        return plan, [row for row in outcome.rows if row.kind == "pruned"]

    return run


def models(plan):
    return [read_tensors(p.model_to) for p in plan.cells if p.kind == "pruned"]


def cut(weights):
    return {n: w == 0 for n, w in weights.items() if ".attention." in n or ".mlp." in n}


# Early


@pytest.mark.parametrize("step", [0, 3, 5])
def test_with_nothing_cut_early_is_the_training_itself_bit_for_bit(swept, step):
    """Dropout, accumulation and a schedule of rates among it: see toys.TINY."""
    plan, rows = swept(
        "schedule=early", f"schedule.at_step={step}", "criterion=snip", "ratio=0.0", "recovery=none"
    )
    dense = plan.trainings[0].run.tensors("model.safetensors")
    (early,) = models(plan)
    assert all(torch.equal(early[name], weight) for name, weight in dense.items())
    assert rows[0].mean("delta") == 0.0
    assert rows[0].settings.get("schedule") == "early"


def test_what_is_cut_early_stays_cut_and_the_rest_trains_on(swept):
    plan, rows = swept("schedule=early", "schedule.at_step=3", "criterion=swe", "ratio=0.5")
    model = opened(plan.trainings[0].run)
    then, lens = model.after(3), model.lens("linear", "all")
    average = lens(then.trajectory["weighted_average"])
    by_hand = torch.cat([w.abs().flatten() for w in average.values()])
    threshold = by_hand.sort().values[round(0.5 * by_hand.numel()) - 1]
    (kept,) = models(plan)
    for name, weight in lens(kept).items():
        assert torch.equal(weight == 0, average[name].abs() <= threshold), name
    assert rows[0].mean("sparsity") == 0.5
    assert rows[0].mean("loss_before_recovery") not in (None, rows[0].mean("loss"))


def test_gradual_pruning_ends_at_the_ratio(swept):
    _, rows = swept(
        "schedule=early", "schedule.at_step=2", "schedule.rounds=3", "criteria=magnitude,wanda",
        "allocation=uniform", "ratio=0.6",
    )  # fmt: skip
    assert len(rows) == 2
    assert all(row.mean("sparsity") == pytest.approx(0.6, abs=1e-3) for row in rows)


def test_a_snapshot_that_is_missing_means_training_again_and_that_is_said(text, tmp_path):
    lean = trained(spec_of(text), tmp_path)
    before = contents(lean)
    plan = spec_of(text, "tracking.snapshots=[3]")
    assert plan.run.name == lean.name
    model = opened(lean)
    with pytest.raises(RunError, match="did not keep what it was after step 3") as caught:
        model.after(3)
    assert "tracking.snapshots=[3]" in caught.value.hint
    run = trained(plan, tmp_path)
    assert snapshot_path(run, 3).is_dir()
    for name, tensors in before[0].items():
        again = contents(run)[0][name]
        assert all(torch.equal(again[key], tensor) for key, tensor in tensors.items())


@pytest.mark.parametrize("wrong", ["schedule.at_step=6", "schedule.at_step=100"])
def test_a_step_after_the_end_is_refused_before_any_work(text, tmp_path, wrong):
    with pytest.raises(UsageError, match=r"not before the end of training, step 6"):
        sweep_of(text, tmp_path, *SHORT, "schedule=early", wrong, "ratio=0.5")


# In rounds

CRITERIA = sorted(path.stem for path in (shipped_conf() / "criterion").glob("*.yaml"))
OF_BLOCKS = {"block_influence"}  # see tests/pruning/test_blocks.py
RATIONED = [name for name in CRITERIA if not name.startswith("bezier") and name not in OF_BLOCKS]


def test_every_criterion_ends_at_the_ratio_in_rounds_under_every_allocation(swept):
    _, rows = swept(
        "schedule=iterative", "schedule.rounds=3", f"criteria={','.join(RATIONED)}",
        "allocations=global,uniform,row,sigma,like,owl,ecoflap", "ratio=0.5",
    )  # fmt: skip
    assert len(rows) == 7 * len(RATIONED)
    off = [
        (r.settings.get("criterion"), r.settings.get("allocation"), r.mean("sparsity"))
        for r in rows
        if abs(r.mean("sparsity") - 0.5) > 1e-9
    ]
    assert not off
    assert all(row.mean("loss_before_recovery") is None for row in rows)
    assert all(row.settings.get("schedule") == "iterative" for row in rows)


@pytest.mark.parametrize("criterion", ["swe", "magnitude", "movement", "wanda", "sparsegpt"])
def test_what_a_round_has_cut_stays_cut(swept, criterion):
    """The first of two rounds, made alone, cuts a part of what both cut."""
    # cubic, n = 2: 1 − (1/2)³ = 7/8 of the ratio
    ramp = ("schedule=iterative", "schedule.rounds=2", "ratio=0.4")
    both, _ = swept(*ramp, f"criterion={criterion}")
    alone, _ = swept(f"criterion={criterion}", "ratio=0.35", "recovery=none")
    first, second = cut(models(alone)[0]), cut(models(both)[0])
    assert sum(int(gone.sum()) for gone in first.values()) > 100
    for name, gone in first.items():
        assert second[name][gone].all(), name


@pytest.mark.parametrize("schedule", ["iterative", "early"])
@pytest.mark.parametrize("criterion", ["magnitude", "flap"])
@pytest.mark.parametrize("pattern", ["neuron", "head"])
def test_units_go_in_rounds_too(swept, pattern, criterion, schedule):
    step = ["schedule.at_step=3"] if schedule == "early" else []
    plan, rows = swept(
        f"schedule={schedule}", "schedule.rounds=2", f"criterion={criterion}", *step,
        f"pattern={pattern}", "allocation=uniform", "ratio=0.5",
    )  # fmt: skip
    (small,) = models(plan)
    width = 16
    name, whole = {
        "neuron": ("layers.0.mlp.expand.weight", 4 * width),
        "head": ("layers.0.attention.qkv.weight", 3 * width),
    }[pattern]
    assert small[name].shape[0] == whole // 2
    output = {"neuron": "mlp.contract", "head": "attention.projection"}[pattern]
    assert (f"layers.0.{output}.bias" in small) == (criterion == "flap")
    assert rows[0].settings.get("schedule") == schedule


def test_biases_that_make_up_for_a_cut_are_trained_between_cuts(swept):
    plan, _ = swept(
        "schedule=iterative", "schedule.rounds=2", "criterion=flap", "pattern=neuron",
        "allocation=uniform", "ratio=0.5",
    )  # fmt: skip
    (cell,) = [cell for cell in plan.cells if cell.kind == "pruned"]
    trained = cell.training.open()
    dense, seen = len(list(trained.model.parameters())), []

    def look(state):
        assert {*map(id, state.parameters)} == {*map(id, trained.model.parameters())}
        seen.append(len(state.parameters))

    execute(cell.spec, trained, callbacks=[toys.Steps(look)])
    assert seen == [dense + 1] * 4


def test_what_an_update_makes_up_for_needs_no_bias(swept):
    plan, rows = swept(
        "criterion=flap", "pattern=neuron", "allocation=uniform", "updates=none,least_squares",
        "ratio=0.5", "recovery=none",
    )  # fmt: skip
    biases = ["layers.0.mlp.contract.bias" in stored for stored in models(plan)]
    assert biases == ["update" not in row.settings for row in rows] == [True, False]
    assert rows[0].mean("loss") != rows[1].mean("loss")


# What finds its own sparsity


def test_on_an_axis_of_ratios_it_is_one_row(swept):
    plan, rows = swept("criteria=magnitude,bezier_mean,bezier_actual", "ratios=0.3,0.5")
    found = [
        (
            row.settings.get("criterion"),
            row.settings.get("ratio"),
            row.settings.get("allocation"),
            row.settings.get("pattern"),
        )
        for row in rows
    ]
    assert sorted(found, key=str) == [
        ("bezier_actual", None, None, None),
        ("bezier_mean", None, None, None),
        ("magnitude", 0.3, "global", "unstructured"),
        ("magnitude", 0.5, "global", "unstructured"),
    ]
    for planned, row in zip([p for p in plan.cells if p.kind == "pruned"], rows, strict=False):
        assert 0 < row.mean("sparsity") < 1, planned


def test_more_rounds_cut_more(swept):
    _, (once,) = swept("criterion=bezier_actual")
    _, (twice,) = swept("criterion=bezier_actual", "schedule=iterative", "schedule.rounds=2")
    assert twice.mean("sparsity") > once.mean("sparsity")


# Published allocations


def test_each_criterion_gets_the_allocation_it_was_published_with(swept):
    plan, rows = swept(
        "criteria=swe,wanda,sparsegpt,magnitude", "allocation=published", "ratio=0.5"
    )
    assert {row.settings.get("criterion"): row.settings.get("allocation") for row in rows} == {
        "swe": "sigma",
        "wanda": "row",
        "sparsegpt": "uniform",
        "magnitude": "global",
    }
    named, _ = swept("criteria=swe", "allocation=sigma", "ratio=0.5")
    assert {p.hash for p in named.cells} < {p.hash for p in plan.cells}


# Fuse


def test_fuse_cuts_whole_slices_and_the_kept_model_is_smaller(swept):
    criterion = ("criterion=magnitude", "ratio=0.6")
    plan, (plain,) = swept(*criterion)
    fused_plan, (fused,) = swept(*criterion, "fuse=0.62")
    assert fused.settings.get("fuse") == 0.62
    assert plain.settings.get("fuse") is None
    assert fused.mean("sparsity") > plain.mean("sparsity")
    (before,), (after,) = models(plan), models(fused_plan)
    name = "layers.0.mlp.expand.weight"
    whole = (before[name] == 0).double().mean(1) > 0.62
    assert 0 < int(whole.sum()) < len(whole)
    assert after[name].shape[0] <= len(whole) - int(whole.sum())
    assert fused.mean("loss_before_recovery") == plain.mean("loss_before_recovery")


@pytest.mark.parametrize("name", CRITERIA)
def test_only_sparsegpt_says_that_it_updates_weights(name):
    criterion = built(component("criterion", name, ConfigRoot()))
    assert criterion.updates_weights == (name == "sparsegpt")
    assert not criterion.updates_weights or isinstance(criterion, LayerCriterion)


def test_snapshots_lie_beside_the_run(text, tmp_path):
    run = trained(spec_of(text, "tracking.snapshots=[0,2]"), tmp_path)
    names = sorted(path.name for path in snapshot_path(run, 0).parent.iterdir())
    assert names == ["step-00000000", "step-00000002"]


# Transforms


def test_a_transform_is_one_row_beside_cuts_and_stores_factors(swept):
    plan, rows = swept(
        "transforms=none,trawl_cp", "transform.ranks=[2,4]", "criteria=swe", "ratios=0.3,0.5"
    )
    assert [(row.settings.get("criterion"), row.settings.get("ratio")) for row in rows] == [
        ("swe", 0.3),
        ("swe", 0.5),
        ("trawl_cp", None),
    ]
    factored = rows[-1]
    cell = next(p for p in plan.cells if "transform" in p.config)
    stored = read_tensors(cell.model_to)
    dense = plan.trainings[0].run.tensors("model.safetensors")
    sizes = [sum(w.numel() for w in of.values()) for of in (stored, dense)]
    assert factored.mean("compression") == pytest.approx(1 - sizes[0] / sizes[1])
    assert factored.mean("parameters") == sizes[0]
    assert factored.mean("bytes") == 4 * sizes[0]
    assert factored.mean("rank") in (2, 4)
    grid = read_json(cell.folder / "grid.json")
    assert [tried["rank"] for tried in grid] == [2, 4]
    best = min(grid, key=lambda tried: tried["validation_loss_nats"])
    assert factored.mean("rank") == best["rank"]
    assert factored.mean("loss_before_recovery") != factored.mean(
        "loss"
    )  # the factors were trained


def test_the_cuts_beside_a_transform_are_the_cells_of_any_sweep(swept):
    with_transform, _ = swept("transforms=none,trawl_cp", "transform.ranks=[2]", "ratio=0.5")
    without, _ = swept("ratio=0.5")
    assert {p.hash for p in without.cells} < {p.hash for p in with_transform.cells}


def test_shrunk_models_cost_less_and_masked_ones_as_much(swept):
    plan, rows = swept("patterns=neuron,unstructured", "criterion=magnitude", "ratio=0.5")
    shrunk, masked = ({n: of.mean for n, of in row.metrics.items()} for row in rows)
    dense = next(cell for cell in plan.cells if cell.kind == "dense").row().mean
    for name in ("parameters", "bytes", "flops_per_token"):
        assert shrunk[name] < masked[name] == dense(name)
    assert masked["nonzeros"] < masked["parameters"] == dense("nonzeros")
    assert masked["nonzero_flops_per_token"] < masked["flops_per_token"]
    assert masked["bytes_compressed"] < masked["bytes"]


def test_no_recovery_takes_no_step_whatever_the_other_of_the_axis_takes(swept):
    _, rows = swept("recoveries=none,finetune", "criterion=magnitude", "ratio=0.5")
    losses = {
        row.settings.get("recovery"): (row.mean("loss_before_recovery"), row.mean("loss"))
        for row in rows
    }
    assert losses["none"][0] == losses["none"][1] == losses["finetune"][0]
    assert losses["finetune"][1] != losses["finetune"][0]
