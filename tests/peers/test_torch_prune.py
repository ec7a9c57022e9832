"""Magnitude and random beside torch.nn.utils.prune, which every torch has."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from swe_cli.ranking import Ranking


def layers(seed=0):
    torch.manual_seed(seed)
    return {"a": nn.Linear(9, 7, bias=False), "b": nn.Linear(5, 11, bias=False)}


def theirs(modules, ratio):
    wanted = [(module, "weight") for module in modules.values()]
    prune.global_unstructured(wanted, pruning_method=prune.L1Unstructured, amount=ratio)
    return {name: module.weight_mask.bool() for name, module in modules.items()}


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.9])
def test_magnitude_at_a_global_rank_is_theirs(ratio):
    modules = layers()
    scores = {name: module.weight.detach().abs() for name, module in modules.items()}
    ranked = Ranking(scores)
    ours = ranked.masks(ranked.lowest(round(ratio * ranked.total)))
    expected = theirs(modules, ratio)
    assert all(torch.equal(ours[name], expected[name]) for name in ours)


def test_ties_are_theirs_in_number_and_not_in_place():
    """torch.topk breaks ties as it likes; ours go by |W| and then by index, on every machine."""
    module = nn.Linear(64, 64, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.randint(1, 4, (64, 64)).float())
    ranked = Ranking({"w": module.weight.detach().abs()})
    (ours,) = ranked.masks(ranked.lowest(2048)).values()
    (expected,) = theirs({"w": module}, 0.5).values()
    assert int((~ours).sum()) == int((~expected).sum()) == 2048
    cut = module.weight_orig.detach()[~ours].sort().values
    assert torch.equal(cut, module.weight_orig.detach()[~expected].sort().values)
    lowest = (module.weight_orig == module.weight_orig[~ours].max()).flatten().nonzero()[:, 0]
    state = ours.flatten()[lowest]
    assert torch.equal(state, state.sort().values)  # of equal scores the first go


def test_their_random_takes_as_many():
    torch.manual_seed(0)
    module = nn.Linear(10, 10, bias=False)
    prune.random_unstructured(module, "weight", amount=0.37)
    ranked = Ranking({"w": torch.rand(10, 10)})
    (ours,) = ranked.masks(ranked.lowest(37)).values()
    assert int((~ours).sum()) == int((module.weight_mask == 0).sum()) == 37
