"""Every transform: a grid of what a model can be, the same twice, and loaded by name."""

import pytest
import torch

from swe_cli.config import component
from swe_cli.contracts import DataShape
from swe_cli.pruning.shrink import load

from .conftest import ROOT, built, names, small_model
from .test_models import batch

SMALL = {"ranks": [2, 3], "layers": "all", "iterations": 5}
REWRITING = [name for name in names("transform") if built("transform", name) is not None]
every = pytest.mark.parametrize("name", REWRITING)
model_name = pytest.mark.parametrize("model", names("model"))


def small(name):
    """A transform of a YAML, at ranks that small models have."""
    known = component("transform", name, ROOT).options
    options = {key: value for key, value in SMALL.items() if key in known}
    return component("transform", name, ROOT, options).build()


def weights_of(model):
    return {name: weight.clone() for name, weight in model.weights().items()}


def test_none_is_no_transform():
    assert built("transform", "none") is None
    assert REWRITING


@every
@model_name
def test_candidates_are_layers_of_the_model_in_its_order(name, model):
    live = small_model(model)
    weights = weights_of(live)
    candidates = small(name).candidates(live.prunable(weights, "linear"))
    modules = [module for module, _ in live.named_modules()]
    first = [modules.index(candidate.layers[0]) for candidate in candidates]
    assert first == sorted(first)
    assert {c.rank for c in candidates} in ({2, 3}, {0})
    for candidate in candidates:
        assert all(layer in modules for layer in candidate.layers)


@every
@model_name
def test_the_same_seed_gives_the_same_bits_and_nothing_is_touched(name, model):
    live, how = small_model(model), small(name)
    weights = weights_of(live)
    kept = {n: t.clone() for n, t in weights.items()}
    randomness = torch.get_rng_state()
    candidate = how.candidates(live.prunable(weights, "linear"))[-1]
    once, twice = (how.apply(weights, candidate, 5) for _ in range(2))
    assert once.keys() == twice.keys() != weights.keys()
    for of, tensor in once.items():
        assert torch.equal(tensor, twice[of])
        assert tensor.isfinite().all()
        assert tensor.dtype is torch.float32
    assert list(weights) == list(kept)
    assert all(torch.equal(weights[n], kept[n]) for n in kept)
    assert all(torch.equal(p, kept[n]) for n, p in live.named_parameters())
    assert torch.equal(randomness, torch.get_rng_state())


@every
@model_name
def test_it_applies_saves_what_it_says_and_is_loaded_and_left_again(name, model):
    live, how = small_model(model).eval(), small(name)
    weights, given = weights_of(live), batch(live)
    expected = live(given).logits
    for candidate in how.candidates(live.prunable(weights, "linear")):
        new = how.apply(weights, candidate, 5)
        assert candidate.saves == sum(t.numel() for t in weights.values()) - sum(
            t.numel() for t in new.values()
        )
        load(live, new)
        assert {n: p.shape for n, p in live.named_parameters()} == {
            n: t.shape for n, t in new.items()
        }
        assert live(given).logits.isfinite().all()
        assert not torch.equal(live(given).logits, expected)
        left = live.prunable(weights_of(live), "linear")
        assert any(n.startswith(candidate.layers) for n in left) is (candidate.rank == 0)
    load(live, weights)
    assert torch.equal(live(given).logits, expected)


@every
@pytest.mark.parametrize("model", ["gpt_nano", "gpt_small", "gpt_paper"])
def test_the_grid_of_its_yaml_fits_the_shipped_models_and_saves_memory_or_has_no_rank(name, model):
    with torch.device("meta"):
        live = component("model", model, ROOT).build(DataShape(65))
        weights = weights_of(live)
        candidates = built("transform", name).candidates(live.prunable(weights, "linear"))
    assert candidates
    assert all(candidate.saves > 0 or not candidate.rank for candidate in candidates)
