"""Units shared out between layers: by what weights say, and never given back."""

from functools import partial

import pytest
import torch
from training.toys import gpt, setup_of

from swe_cli.allocation.counts import OWL, Uniform
from swe_cli.contracts import Allocation, Evidence, WeightCriterion
from swe_cli.patterns.shapes import Head, Neuron
from swe_cli.pruning.prune import MAGNITUDE, Judge, Method, Scorer, prune


class Given(WeightCriterion):
    def __init__(self, scores):
        self.scores = scores

    def score(self, evidence):
        return self.scores


@pytest.fixture
def model():
    """Two layers of 64 neurons and four heads."""
    return gpt(11, layers=2, heads=4, width=16, initialization="torch")


def weights_of(model):
    return model.prunable(model.weights(), "linear")


def masks_of(model, pattern, allocation, earlier=None, **consulted):
    judges = {name: Judge(criterion, name, name) for name, criterion in consulted.items()}
    method = Method(MAGNITUDE, 0.5, None, allocation, pattern, judges)
    lens = partial(model.prunable, which="linear")
    evidence = Evidence(weights_of(model))
    return prune(method, Scorer(setup_of(model, None), lens, evidence, None, earlier or {}))


def lost(masks, layer):
    """Neurons and heads of a layer that are gone whole: a head is four rows of each third."""
    neurons = masks[f"layers.{layer}.mlp.expand.weight"]
    heads = masks[f"layers.{layer}.attention.qkv.weight"].view(3, 4, 4, 16)
    return int((~neurons.any(1)).sum()), int((~heads.transpose(0, 1).flatten(1).any(1)).sum())


@pytest.mark.parametrize(
    # d = 2 · 0.3 · (1, 0), its mean 0.3: the layers lose 0.2 and 0.8 of their units.
    ("pattern", "by_owl", "by_uniform"),
    [(Neuron(), [(13, 0), (51, 0)], [(32, 0)] * 2), (Head(), [(0, 1), (0, 3)], [(0, 2)] * 2)],
)
def test_owl_counts_outliers_among_weights_whatever_the_pattern(model, pattern, by_owl, by_uniform):
    """Units would show none: here all of a layer have the same norm."""
    scores = {}
    for name, weight in weights_of(model).items():
        rows, columns = (torch.arange(size) for size in weight.shape)
        sixteenth = (rows[:, None] + columns) % 16 == 0  # as many of every unit
        scores[name] = torch.ones_like(weight)
        scores[name][sixteenth] = 100.0 if name.startswith("layers.0.") else 1.0
    owl = OWL(outlier=5.0, strength=0.3, within="row")
    masks = masks_of(model, pattern, owl, wanda=Given(scores))
    assert [lost(masks, layer) for layer in (0, 1)] == by_owl
    masks = masks_of(model, pattern, Uniform())
    assert [lost(masks, layer) for layer in (0, 1)] == by_uniform


def test_units_that_are_gone_are_not_given_back(model):
    class Second(Allocation):
        """All neurons of the second layer, and none of the first."""

        def counts(self, ranking, ratio, context):
            first, second = ranking.sizes
            return {first: 0, second: 64}

    kept = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights_of(model).items()}
    kept["layers.0.mlp.expand.weight"][7:17] = False
    kept["layers.0.mlp.contract.weight"][:, 7:17] = False
    masks = masks_of(model, Neuron(), Second(), kept)
    assert [lost(masks, layer)[0] for layer in (0, 1)] == [10, 54]
    assert all(not (mask & ~kept[name]).any() for name, mask in masks.items())
