"""A cut with an update: another cell beside that without, from the same mask."""

import pytest
import torch
from training import toys
from training.toys import opened, sweep_of, trained
from updates.test_least_squares import damped, errors, exactly

from swe_cli.experiments.cell import CellRun, run_cell
from swe_cli.files import read_tensors
from swe_cli.pruning.shrink import load
from swe_cli.report.summary import summarise
from swe_cli.report.tables import frame, markdown

BOTH = "update=none,least_squares"
SMALL = ("training.steps=6", "keep=models", "calibration.samples=8", "recovery=none")


@pytest.fixture
def swept(text, results):
    def run(*words):
        plan = sweep_of(text, results, *SMALL, *words)
        outcome = toys.swept(plan)
        assert not outcome.failed, outcome.failed[0].error
        return plan, outcome.rows

    return run


def cut_cells(plan):
    return [cell for cell in plan.cells if cell.kind == "pruned"]


def updated_by(cell):
    return cell.spec.settings().get("update")


def test_an_update_is_a_cell_beside_that_of_the_same_mask(swept):
    words = ("criteria=swe,magnitude,random,wanda", "ratio=0.5", "allocation=uniform")
    plan, rows = swept(*words, "updates=none,least_squares")
    plain, _ = swept(*words)
    assert {c.hash for c in plain.cells} < {c.hash for c in plan.cells}
    assert len(cut_cells(plan)) == 8
    assert len(plan.cells) - len(plain.cells) == 4  # and no control of its own
    by = {(c.spec.criterion.name, updated_by(c)): read_tensors(c.model_to) for c in cut_cells(plan)}
    for criterion in ("swe", "magnitude", "random", "wanda"):
        before, after = by[criterion, None], by[criterion, "least_squares"]
        assert all(torch.equal(weight == 0, after[n] == 0) for n, weight in before.items())
        changed = {n for n, weight in before.items() if not torch.equal(weight, after[n])}
        assert changed == {n for n in before if ".attention." in n or ".mlp." in n}
    cuts = [row for row in rows if row.kind == "pruned"]
    pairs = {
        (row.settings["criterion"], row.settings.get("update")): row.mean("jaccard_magnitude")
        for row in cuts
    }
    assert pairs["random", None] == pairs["random", "least_squares"]


def test_identity_says_how_and_by_which_data_and_nothing_where_there_is_none(swept):
    plan, _ = swept("criterion=random", "ratio=0.5", BOTH)
    none, least = sorted((c.config for c in cut_cells(plan)), key=len)
    assert "update" not in none
    assert "calibration" not in none
    assert least["update"] == {
        "name": "least_squares", "damping": 0.01, "tolerance": 1e-4, "steps": 500
    }  # fmt: skip
    assert least["calibration"]["samples"] == 8


def test_tables_and_labels_tell_them_apart(swept):
    _, rows = swept("criteria=magnitude,random", "ratio=0.5", BOTH)
    table = frame(rows)
    cuts = table[table["kind"] == "pruned"]
    assert sorted(cuts["update"].fillna("")) == ["", "", "least_squares", "least_squares"]
    assert table.attrs["axes"] == ["update"]
    labels = {line.label for line in summarise(table).lines}
    assert len(labels) == 4
    assert "random (update least_squares)" in labels
    assert "| update |" in markdown(table)
    alone = frame([row for row in rows if row.settings.get("update") or row.kind != "pruned"])
    assert "update least_squares" in markdown(alone).split("|")[0]
    plain = frame([row for row in rows if not row.settings.get("update")])
    assert "update" not in plain


def test_an_option_of_an_update_goes_to_those_that_have_it(swept):
    plan, _ = swept("criterion=random", "ratio=0.5", BOTH, "update.damping=0.1")
    assert len(cut_cells(plan)) == 2
    (damped_,) = [c for c in cut_cells(plan) if updated_by(c)]
    assert damped_.config["update"]["damping"] == 0.1
    plan, rows = swept(
        "criterion=random", "ratio=0.5", "update=least_squares", "update.damping=0.1,1"
    )
    assert [dict(c.axes) for c in cut_cells(plan)] == [
        {"update.damping": 0.1},
        {"update.damping": 1},
    ]
    assert frame(rows).attrs["axes"] == ["update", "update.damping"]


def work_of(text, results, *words):
    """A cut that is to be made, and the uncut weights of its model."""
    plan = sweep_of(text, results, *SMALL, "ratio=0.5", "update=least_squares", *words)
    (cell,) = cut_cells(plan)
    model = opened(trained(plan.trainings[0], results))
    return CellRun(cell.spec, model), model.weights("final")


QKV = "layers.0.attention.qkv"  # of a model of one block the first that is fed something


@pytest.mark.parametrize("criterion", ["sparsegpt", "bezier_actual", "magnitude"])
def test_weights_are_the_best_of_the_uncut_ones_whoever_made_the_mask(text, results, criterion):
    """SparseGPT's own are thrown away."""
    amount = ["ratio=null"] if criterion == "bezier_actual" else []
    work, uncut = work_of(text, results, f"criterion={criterion}", *amount)
    work.prune()
    name = f"{QKV}.weight"
    live, kept = work._live()[name].clone(), work.masks[name]
    x = inputs(work)
    gram = damped(x)
    best = errors(uncut[name], exactly(uncut[name], kept, gram), gram)
    assert (~kept).any()
    assert (errors(uncut[name], live, gram) <= 1.001 * best).all()
    assert torch.equal(live == 0, ~kept)


def inputs(work):
    """What the first matrix is fed over the calibration set: nothing before it was cut."""
    seen, layer = [], work.trained.model.get_submodule(QKV)
    hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(0, -2)))
    work.trained.model.eval()
    with torch.no_grad():
        for batch in work.spec.calibration.instance.batches(work.trained, 8):
            work.trained.model(batch)
    hook.remove()
    return torch.cat(seen)


def test_a_later_round_starts_from_what_its_weights_had_become(text, results):
    rounds = ("schedule=iterative", "schedule.rounds=2", "recovery=finetune", "recovery.steps=2")
    work, _ = work_of(text, results, "criterion=magnitude", *rounds)
    name = f"{QKV}.weight"
    work.cut(1)
    first = work.masks
    view = work._live()[name]
    view.mul_(1 + 0.1 * first[name])  # what was learned in between
    learned = view.clone()
    work.cut(2)
    gram = damped(inputs(work))
    best = errors(learned, exactly(learned, work.masks[name], gram), gram)
    assert (errors(learned, view, gram) <= 1.001 * best).all()
    assert (work.masks[name] != first[name]).any()
    assert torch.equal(view == 0, ~work.masks[name])


@pytest.mark.parametrize("pattern", ["neuron", "head"])
def test_units_go_whole_and_the_smaller_model_is_the_masked_one(text, results, pattern):
    work, uncut = work_of(
        text, results, "criterion=random", f"pattern={pattern}", "allocation=uniform"
    )
    work.prune()
    masked = {name: weight.clone() for name, weight in work.trained.model.weights().items()}
    reads, writes = {
        "neuron": ("mlp.expand", "mlp.contract"),
        "head": ("attention.qkv", "attention.projection"),
    }[pattern]
    reads, writes = f"layers.0.{reads}.weight", f"layers.0.{writes}.weight"
    assert torch.equal(masked[reads], uncut[reads] * work.masks[reads])  # whole rows, or none
    assert not torch.equal(masked[writes], uncut[writes] * work.masks[writes])
    batch = work.trained.random_batch("test", 4, 1)
    with torch.no_grad():
        expected = work.trained.model.eval()(batch).logits
        work.finish({})
        smaller = work.trained.model.eval()(batch).logits
    assert work.weights[writes].shape[1] == uncut[writes].shape[1] // 2
    torch.testing.assert_close(smaller, expected, rtol=1e-4, atol=1e-5)
    load(work.trained.model, uncut)


def test_it_recovers_and_stays_cut_and_gives_the_same_bits_again(text, results, tmp_path):
    words = ("criterion=random", "ratio=0.5", "update=least_squares", "recovery=finetune")
    found = []
    for folder in (results, tmp_path):
        plan = sweep_of(text, folder, "training.steps=6", "keep=models", "recovery.steps=3", *words)
        trained(plan.trainings[0], folder)
        (cell,) = cut_cells(plan)
        found.append((run_cell(cell).to_json(), read_tensors(cell.model_to)))
    (one, kept), (two, again) = found
    assert one == two
    assert all(torch.equal(weight, again[name]) for name, weight in kept.items())
    assert one["sparsity"] == 0.5
    assert one["loss_before_recovery_nats"] != one["loss_nats"]


def test_patterns_and_schedules_take_it(swept):
    """Cuts of groups; in the middle of training; of every tensor; of the averaged weights."""
    early = ("schedule=early", "schedule.at_step=3")
    for words in (("pattern=2of4",), early, ("prunable=all",), ("base=averaged",)):
        ratio = [] if "pattern=2of4" in words else ["ratio=0.5"]
        plan, rows = swept("criterion=magnitude", "update=least_squares", *ratio, *words)
        (cell,) = cut_cells(plan)
        assert rows[-1].mean("sparsity") == pytest.approx(0.5, abs=1e-3)
        assert updated_by(cell) == "least_squares"


OWN = {
    "lab/__init__.py": "",
    "lab/kept.py": """
        class Louder:
            def __init__(self, *, by: float):
                self.by = by

            def solve(self, weight, kept, inputs):
                return self.by * weight
    """,
    "conf/update/louder.yaml": """
        _target_: lab.kept.Louder
        by: 1.5
    """,
}


def test_an_update_of_ones_own_is_a_file_and_a_yaml(text, results, tmp_path, package):
    root = package(tmp_path, OWN)
    words = (*SMALL, "criterion=magnitude", "ratio=0.5", "updates=none,louder", "update.by=3")
    plan = sweep_of(text, results, *words, root=root)
    assert not toys.swept(plan).failed
    before, after = (read_tensors(cell.model_to) for cell in cut_cells(plan))
    for name, weight in before.items():
        times = 3 if ".attention." in name or ".mlp." in name else 1
        assert torch.equal(after[name], times * weight), name
    described = cut_cells(plan)[1].config["update"]
    assert described["by"] == 3.0
    assert len(described["source"]) == 16
