"""Every statistic: in place, float32, no memory of its own past, saved and loaded whole."""

import pytest
import torch

from .conftest import built, names, observe

pytestmark = pytest.mark.parametrize("name", names("statistic"))


def test_it_is_float32_and_in_place_and_constant_in_size(name, life):
    statistic = built("statistic", name, life.weights)
    places = {n: (t.data_ptr(), t.shape) for n, t in statistic.state().items()}
    observe(statistic, life.observations)
    state = statistic.state()
    assert {n: (t.data_ptr(), t.shape) for n, t in state.items()} == places
    assert set(life.weights) <= set(state)
    assert all(t.dtype is torch.float32 and t.isfinite().all() for t in state.values())
    assert all(state[n].shape == w.shape for n, w in life.weights.items())


def test_it_watches_without_touching(name, life):
    before = [{n: w.clone() for n, w in weights.items()} for weights in life.observations]
    observe(built("statistic", name, life.weights), life.observations)
    for weights, kept in zip(life.observations, before, strict=True):
        assert all(torch.equal(weights[n], kept[n]) for n in kept)


def test_it_does_not_hold_on_to_the_weights_it_saw(name, life):
    statistic = built("statistic", name, life.weights)
    live = {n: w.clone() for n, w in life.weights.items()}
    observe(statistic, [live])
    kept = {n: t.clone() for n, t in statistic.state().items()}
    for weight in live.values():
        weight.fill_(99)
    assert all(torch.equal(t, kept[n]) for n, t in statistic.state().items())


def test_it_goes_on_from_what_it_saved(name, life):
    whole, first = (built("statistic", name, life.weights) for _ in range(2))
    observe(whole, life.observations)
    observe(first, life.observations[:2])
    saved = {n: t.clone() for n, t in first.state().items()}
    second = built("statistic", name, life.weights)
    second.load(saved)
    for tensor in saved.values():  # what was loaded is a copy
        tensor.fill_(torch.nan)
    observe(second, life.observations[2:], start=3)
    assert all(torch.equal(t, second.state()[n]) for n, t in whole.state().items())
