"""Every criterion: a finite score per weight, the same twice, and nothing touched."""

import pytest
import torch

from swe_cli.contracts import Evidence

from .conftest import built, names

pytestmark = pytest.mark.parametrize("name", names("criterion"))


def evidence(life, seed=3):
    return Evidence(life.weights, life.trajectory, seed)


def test_it_needs_only_what_can_be_recorded(name):
    assert set(built("criterion", name).needs) <= set(names("statistic"))


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


def test_it_reads_no_statistic_that_it_does_not_name(name, life):
    criterion = built("criterion", name)
    only = {need: life.trajectory[need] for need in criterion.needs}
    alone = criterion.score(Evidence(life.weights, only, 3))
    among_all = criterion.score(Evidence(life.weights, life.trajectory, 3))
    assert all(torch.equal(alone[tensor], score) for tensor, score in among_all.items())


def test_it_changes_nothing_it_looks_at(name, life):
    looked_at = [life.weights, *life.trajectory.values()]
    before = [{n: t.clone() for n, t in tensors.items()} for tensors in looked_at]
    scores = built("criterion", name).score(evidence(life))
    for score in scores.values():
        score.mul_(0)  # what it gives away is its own
    for tensors, kept in zip(looked_at, before, strict=True):
        assert all(torch.equal(tensors[n], kept[n]) for n in kept)


def test_it_does_not_touch_global_randomness(name, life):
    before = torch.get_rng_state()
    built("criterion", name).score(evidence(life))
    assert torch.equal(before, torch.get_rng_state())
