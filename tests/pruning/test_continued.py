"""The rest of a training that was cut in its middle."""

from functools import partial

import pytest
import torch
from training.toys import MACHINE, After, dataset, gpt, recipe

from swe_cli.errors import Interrupted
from swe_cli.pruning.continued import Continued
from swe_cli.pruning.cut import cut
from swe_cli.pruning.recover import Watch

DATA = dataset()


def snapshot(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.fixture
def begun():
    """A model of which half is cut, and the rest of its ten steps, from the fourth on."""

    def begin(**watching):
        model = gpt(DATA.shape.vocabulary_size, dropout=0.2)
        lens = partial(model.prunable, which="linear")
        draw = partial(torch.rand, generator=torch.Generator().manual_seed(2))
        masks = {name: draw(view.shape) < 0.5 for name, view in lens(snapshot(model)).items()}
        cut({n: p.detach() for n, p in model.named_parameters()}, masks, lens)
        made = recipe(steps=10, batch_size=3, learning_rate=1e-2, weight_decay=0.1)
        optimizer = made.build_optimizer(model.parameters())
        watch = Watch(**watching)
        rest = Continued(model, DATA, lens, made, optimizer, 1, MACHINE, watch, step=4)
        return model, masks, rest

    return begin


def test_what_was_cut_stays_cut_after_every_step_and_the_rest_moves(begun):
    checked = []

    def look(step):
        checked.append(step)
        live = rest.lens({n: p.detach() for n, p in model.named_parameters()})
        assert all((live[name][~mask] == 0).all() for name, mask in masks.items())

    model, masks, rest = begun(after_step=look)
    before = snapshot(model)
    assert rest.left == 6
    rest.run(2, masks)
    rest.run(4, masks)
    assert checked == [5, 6, 7, 8, 9, 10]
    assert rest.left == 0
    live = snapshot(model)
    for name, mask in masks.items():
        assert (live[name] != before[name])[mask].all()


def test_without_masks_the_same_steps_would_fill_the_holes(begun):
    """What makes the test above able to fail."""
    model, masks, rest = begun()
    rest.run(1, {})
    live = rest.lens(snapshot(model))
    assert all((live[name][~mask] != 0).double().mean() > 0.9 for name, mask in masks.items())


def test_it_can_be_stopped(begun):
    _, masks, rest = begun(stop=After(2))
    with pytest.raises(Interrupted, match="rest of training"):
        rest.run(6, masks)
    assert rest.left == 4
