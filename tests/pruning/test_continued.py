"""The rest of a training that was cut in its middle."""

from functools import partial

import pytest
import torch
from training.toys import After, dataset, gpt, recipe, setup_of

from swe_cli.errors import Interrupted
from swe_cli.pruning.masks import apply_masks
from swe_cli.pruning.recover import EnforceMasks
from swe_cli.training.state import Callback, StopWhen, fit

DATA = dataset()


@pytest.fixture
def begun():
    """A model of which half is cut, its masks, and its training of ten steps, after the fourth."""
    model = gpt(DATA.shape.vocabulary_size, dropout=0.2)
    draw = partial(torch.rand, generator=torch.Generator().manual_seed(2))
    views = model.prunable(model.weights(), "linear")
    masks = {name: draw(view.shape) < 0.5 for name, view in views.items()}
    apply_masks(masks, views)
    made = recipe(steps=10, batch_size=3, learning_rate=1e-2, weight_decay=0.1)
    state = made.begin(setup_of(model, DATA))
    state.step = 4
    return views, masks, state


def enforcing(masks, state):
    model = state.setup.model
    return EnforceMasks(model.prunable(model.weights(), "linear"), masks)


def test_what_was_cut_stays_cut_after_every_step_and_the_rest_moves(begun):
    views, masks, state = begun
    checked = []

    class Look(Callback):
        def after_step(self, state, metrics):
            checked.append(state.step)
            assert all((views[name][~mask] == 0).all() for name, mask in masks.items())

    before = {name: view.clone() for name, view in views.items()}
    for steps in (2, 4):
        fit(state, steps, [enforcing(masks, state), Look()])
    assert checked == [5, 6, 7, 8, 9, 10]
    for name, mask in masks.items():
        assert (views[name] != before[name])[mask].all()


def test_without_masks_the_same_steps_would_fill_the_holes(begun):
    """What makes the test above able to fail."""
    views, masks, state = begun
    fit(state, 1, [enforcing({}, state)])
    assert all((views[name][~mask] != 0).double().mean() > 0.9 for name, mask in masks.items())


def test_it_can_be_stopped(begun):
    _, masks, state = begun
    with pytest.raises(Interrupted, match="rest of training"):
        fit(state, 6, [enforcing(masks, state), StopWhen(After(2), "In the rest of training.")])
    assert state.step == 6
