"""What a cut judges: the weights it is made of, in a first round and in later ones."""

import pytest
import torch
from training.toys import trained, words_for

from swe_cli.compose import ConfigRoot, read_tokens
from swe_cli.files import read_tensors
from swe_cli.pruning.cut import cut
from swe_cli.sweeps.cells import run_cell
from swe_cli.sweeps.cutting import Cutting, Start, live
from swe_cli.sweeps.plan import plan_sweep
from swe_cli.sweeps.subject import load_subject

SCALED = "layers.0.mlp.contract.weight"


@pytest.fixture
def cells(text, results):
    """The cells of cut models of a sweep, trained for, and the subject."""

    def plan(*words):
        typed = words_for(text, "training.steps=6", "keep=models", "recovery=none", *words)
        made = plan_sweep(read_tokens(typed), ConfigRoot(), results)
        run = trained(made.trainings[0], results)
        subject = load_subject(run, ConfigRoot())
        return [p.cell for p in made.cells if p.cell.kind == "pruned"], subject

    return plan


@pytest.fixture
def rounds(cells):
    """Cut a live model in rounds: a function of what earlier ones kept, and the model's views."""

    def begin(*words):
        (cell,), subject = cells(*words)
        lens = subject.lens("linear", "all")
        start = Start(subject.weights("final"), subject.trajectory)
        model = subject.load(start.weights)

        def masks(fraction, kept, turn):
            found, _ = Cutting(cell, subject, lens, start, kept, turn).masks(fraction)
            cut(live(model), found, lens)
            return found

        return masks, lens(live(model))

    return begin


def lost(masks):
    return {name: int((~mask).sum()) for name, mask in masks.items()}


def lowest(weights, ratio):
    """By hand: which weights are among the smallest of all."""
    magnitudes = torch.cat([w.abs().flatten() for w in weights.values()])
    threshold = magnitudes.sort().values[round(ratio * magnitudes.numel()) - 1]
    return {name: w.abs() <= threshold for name, w in weights.items()}


def test_early_and_one_shot_cells_of_one_subject_each_judge_their_own_weights(cells):
    made, subject = cells(
        "schedules=early,one_shot", "schedule.at_step=1", "criterion=magnitude", "ratio=0.4"
    )
    lens = subject.lens("linear", "all")
    of = {"early": subject.after(1).weights, "one_shot": subject.weights("final")}
    expected = {name: lowest(lens(weights), 0.4) for name, weights in of.items()}
    assert any(not torch.equal(expected["early"][n], m) for n, m in expected["one_shot"].items())
    for cell in made:
        run_cell(cell)  # the process keeps one subject for both
        holes = {name: w == 0 for name, w in lens(read_tensors(cell.model_to)).items()}
        mine = expected[cell.config["schedule"]["name"]]
        assert all(torch.equal(holes[name], mask) for name, mask in mine.items())


@pytest.mark.parametrize("criterion", ["magnitude", "wanda"])
def test_a_later_round_judges_what_weights_have_become(rounds, criterion):
    masks, views = rounds(f"criterion={criterion}", "allocation=global", "ratio=0.6")
    first = masks(0.5, {}, 1)
    assert sum(lost(first).values()) == round(0.3 * sum(v.numel() for v in views.values()))
    views[SCALED].mul_(1e4)  # what was learned in between
    second = masks(1.0, first, 2)
    assert sum(lost(second).values()) == round(0.6 * sum(v.numel() for v in views.values()))
    assert lost(first)[SCALED] > 0
    assert torch.equal(second[SCALED], first[SCALED])  # it is the largest by far now
    assert all(not (mask & ~first[name]).any() for name, mask in second.items())


@pytest.mark.parametrize("kind", ["bezier_actual", "bezier_mean"])
def test_masks_that_are_drawn_anew_are_laid_on_the_earlier_ones(rounds, kind):
    masks, views = rounds(f"criterion={kind}", "criterion.u=0.5")  # of the outer bins half
    first = masks(1.0, {}, 1)
    for view in views.values():  # or the holes of the first would be cut for being zeros
        view.copy_(torch.randn(view.shape, generator=torch.Generator().manual_seed(1)))
    alone, both = masks(1.0, {}, 2), masks(1.0, first, 2)
    for name, mask in first.items():
        assert (~mask & alone[name]).any()  # a mask of its own would give some back
        assert not (~mask & both[name]).any()
        assert lost(both)[name] > lost(first)[name]
