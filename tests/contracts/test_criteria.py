"""Every criterion: a finite score per weight, the same twice, and nothing touched."""

from dataclasses import replace

import pytest
import torch

from swe_cli.contracts import (
    BLOCKS,
    GRADIENTS,
    INPUTS,
    DrawnCriterion,
    Evidence,
    LayerCriterion,
    WeightCriterion,
)

from .conftest import built, fed, names

ALL = names("criterion")
TOLD = (*GRADIENTS, *BLOCKS)  # by a calibration set
KINDS = {"layer": LayerCriterion, "weight": WeightCriterion, "mask": DrawnCriterion}
LAYERWISE, SCORING, DRAWN = (
    [name for name in ALL if built("criterion", name).granularity == kind] for kind in KINDS
)
PATTERNS = names("pattern")
scoring = pytest.mark.parametrize("name", SCORING)
layerwise = pytest.mark.parametrize("name", LAYERWISE)
drawn = pytest.mark.parametrize("name", DRAWN)


def evidence(life, seed=3):
    return Evidence(life.weights, life.trajectory, seed, life.calibration)


@pytest.mark.parametrize("name", ALL)
def test_every_criterion_is_of_the_kind_it_declares(name):
    criterion = built("criterion", name)
    assert isinstance(criterion, KINDS[criterion.granularity])
    assert hasattr(criterion, "draw") == (name in DRAWN)
    assert hasattr(criterion, "prune_layer") == (name in LAYERWISE)


@pytest.mark.parametrize("name", ALL)
def test_what_it_judges_can_be_cut(name):
    assert built("criterion", name).unit in (None, *(built("pattern", p).unit for p in PATTERNS))


@pytest.mark.parametrize("name", ALL)
def test_it_was_published_with_an_allocation_that_there_is(name):
    assert built("criterion", name).published in names("allocation")


@pytest.fixture
def wide():
    """Neurons with inputs enough to draw from, and what every statistic could say of them."""
    generator = torch.Generator().manual_seed(5)
    weights = {"a": torch.randn(6, 64, generator=generator), "b": torch.randn(5)}
    lived = {n: w + 0.1 * torch.randn(w.shape, generator=generator) for n, w in weights.items()}
    return Evidence(weights, dict.fromkeys(names("statistic"), lived), 3)


@drawn
def test_masks_are_drawn_from_the_seed_and_the_round(name, wide):
    criterion, before = built("criterion", name), torch.get_rng_state()
    masks = criterion.draw(wide, 1)
    assert torch.equal(before, torch.get_rng_state())
    assert list(masks) == list(wide.weights)
    for tensor, mask in masks.items():
        assert (mask.dtype, mask.shape) == (torch.bool, wide.weights[tensor].shape)
    assert not all(mask.all() for mask in masks.values())

    def same(other):
        return all(torch.equal(mask, other[n]) for n, mask in masks.items())

    assert same(criterion.draw(wide, 1))
    assert not same(criterion.draw(wide, 2))
    assert not same(criterion.draw(replace(wide, seed=4), 1))


@drawn
def test_a_drawn_one_needs_only_what_can_be_recorded(name, wide):
    criterion = built("criterion", name)
    assert set(criterion.needs) <= set(names("statistic"))
    alone = replace(wide, trajectory={need: wide.trajectory[need] for need in criterion.needs})
    drawn = criterion.draw(wide, 1)
    assert all(torch.equal(mask, drawn[n]) for n, mask in criterion.draw(alone, 1).items())


@scoring
def test_it_needs_only_what_can_be_recorded_or_calibrated(name):
    assert set(built("criterion", name).needs) <= {*names("statistic"), *TOLD}


@layerwise
def test_a_layerwise_one_needs_inputs(name):
    assert set(built("criterion", name).needs) <= set(INPUTS)


@scoring
def test_scores_are_finite_one_for_each_weight_and_the_same_twice(name, life):
    scores = built("criterion", name).score(evidence(life))
    again = built("criterion", name).score(evidence(life))
    assert list(scores) == list(life.weights)
    for tensor, score in scores.items():
        assert score.shape == life.weights[tensor].shape
        assert score.is_floating_point()
        assert score.isfinite().all()
        assert torch.equal(score, again[tensor])
    assert any(len(score.unique()) > 1 for score in scores.values())


@scoring
def test_it_reads_no_statistic_that_it_does_not_name(name, life):
    criterion = built("criterion", name)
    lived = {need: life.trajectory[need] for need in criterion.needs if need not in TOLD}
    told = {need: life.calibration[need] for need in criterion.needs if need in TOLD}
    alone = criterion.score(Evidence(life.weights, lived, 3, told))
    among_all = criterion.score(evidence(life))
    assert all(torch.equal(alone[tensor], score) for tensor, score in among_all.items())


@scoring
def test_it_changes_nothing_it_looks_at(name, life):
    looked_at = [life.weights, *life.trajectory.values(), *life.calibration.values()]
    before = [{n: t.clone() for n, t in tensors.items()} for tensors in looked_at]
    scores = built("criterion", name).score(evidence(life))
    for score in scores.values():
        score.mul_(0)  # what it gives away is its own
    for tensors, kept in zip(looked_at, before, strict=True):
        assert all(torch.equal(tensors[n], kept[n]) for n in kept)


@scoring
def test_it_does_not_touch_global_randomness(name, life):
    before = torch.get_rng_state()
    built("criterion", name).score(evidence(life))
    assert torch.equal(before, torch.get_rng_state())


class Lowest:
    """Cut the lower half of the scores of every row, as a choice of so many columns at a time."""

    def __init__(self, group=None):
        self.group, self.asked = group, []

    def __call__(self, scores, first):
        self.asked.append((first, first + scores.shape[1]))
        order = scores.argsort(dim=1).argsort(dim=1)
        return order >= scores.shape[1] // 2


@layerwise
@pytest.mark.parametrize("group", [None, 4])
def test_a_layer_is_pruned_as_it_is_told(name, group):
    criterion, inputs = built("criterion", name), fed(16)
    weight = torch.randn(6, 16, generator=torch.Generator().manual_seed(2))
    before, choose = weight.clone(), Lowest(group)
    scores = criterion.score_layer(weight, inputs)
    assert scores.shape == weight.shape
    assert scores.isfinite().all()
    assert torch.equal(weight, before)
    kept = criterion.prune_layer(weight, inputs, choose)
    assert kept.dtype is torch.bool
    assert (kept.sum(1) == 8).all()
    assert (weight[~kept] == 0).all()
    assert (weight[kept] != 0).all()
    # Every column once, left to right, in whole groups.
    assert [first for first, _ in choose.asked] == [0, *(last for _, last in choose.asked[:-1])]
    assert choose.asked[-1][1] == 16
    if group:
        assert all((last - first) % group == 0 for first, last in choose.asked)
