"""What a cut judges: the weights it is made of, in a first round and in later ones."""

import pytest
import torch
from training.toys import opened, sweep_of, trained

from swe_cli.experiments.cell import CellRun, run_cell
from swe_cli.files import read_tensors

SCALED = "layers.0.mlp.contract.weight"


@pytest.fixture
def cells(text, results):
    """The cells of cut models of a sweep, and the model that they are cut from."""

    def plan(*words):
        made = sweep_of(text, results, "training.steps=6", "keep=models", *words)
        model = opened(trained(made.trainings[0], results))
        return [p for p in made.cells if p.kind == "pruned"], model

    return plan


@pytest.fixture
def rounds(cells):
    """Cut a live model in two rounds: what makes the masks of one, and the model's weights."""

    def begin(*words):
        two = (
            "schedule=iterative",
            "schedule.rounds=2",
            "schedule.ramp=linear",
            "recovery.steps=2",
        )
        (cell,), model = cells(*two, *words)
        work = CellRun(cell.spec, model)

        def masks(at_round, earlier):
            work.masks = earlier
            work.cut(at_round)
            return work.masks

        return masks, work._live()

    return begin


def lost(masks):
    return {name: int((~mask).sum()) for name, mask in masks.items()}


def lowest(weights, ratio):
    """By hand: which weights are among the smallest of all."""
    magnitudes = torch.cat([w.abs().flatten() for w in weights.values()])
    threshold = magnitudes.sort().values[round(ratio * magnitudes.numel()) - 1]
    return {name: w.abs() <= threshold for name, w in weights.items()}


def test_early_and_one_shot_cells_of_one_model_each_judge_their_own_weights(cells):
    made, model = cells(
        "schedules=early,one_shot",
        "schedule.at_step=1",
        "criterion=magnitude",
        "ratio=0.4",
        "recovery=none",
    )
    lens = model.lens("linear", "all")
    of = {"early": model.after(1).weights, "one_shot": model.weights("final")}
    expected = {name: lowest(lens(weights), 0.4) for name, weights in of.items()}
    assert any(not torch.equal(expected["early"][n], m) for n, m in expected["one_shot"].items())
    for cell in made:
        run_cell(cell)  # the process keeps one model for both
        holes = {name: w == 0 for name, w in lens(read_tensors(cell.model_to)).items()}
        mine = expected[cell.config["schedule"]["name"]]
        assert all(torch.equal(holes[name], mask) for name, mask in mine.items())


@pytest.mark.parametrize("criterion", ["magnitude", "wanda"])
def test_a_later_round_judges_what_weights_have_become(rounds, criterion):
    masks, views = rounds(f"criterion={criterion}", "allocation=global", "ratio=0.6")
    first = masks(1, {})
    assert sum(lost(first).values()) == round(0.3 * sum(v.numel() for v in views.values()))
    views[SCALED].mul_(1e4)  # what was learned in between
    second = masks(2, first)
    assert sum(lost(second).values()) == round(0.6 * sum(v.numel() for v in views.values()))
    assert lost(first)[SCALED] > 0
    assert torch.equal(second[SCALED], first[SCALED])  # it is the largest by far now
    assert all(not (mask & ~first[name]).any() for name, mask in second.items())


@pytest.mark.parametrize("kind", ["bezier_actual", "bezier_mean"])
def test_masks_that_are_drawn_anew_are_laid_on_the_earlier_ones(rounds, kind):
    masks, views = rounds(f"criterion={kind}", "criterion.u=0.5")  # of the outer bins half
    first = masks(1, {})
    for view in views.values():  # or the holes of the first would be cut for being zeros
        view.copy_(torch.randn(view.shape, generator=torch.Generator().manual_seed(1)))
    alone, both = masks(2, {}), masks(2, first)
    for name, mask in first.items():
        assert (~mask & alone[name]).any()  # a mask of its own would give some back
        assert not (~mask & both[name]).any()
        assert lost(both)[name] > lost(first)[name]
