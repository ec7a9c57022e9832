"""An update goes block by block: from the uncut weights, on what updated blocks before it give."""

import pytest
import torch
from updates.test_least_squares import damped, errors, exactly, update

from pruning.test_calibration import Called, calibrated, inputs_of, model_of
from swe_cli.contracts import Evidence, Update
from swe_cli.errors import PruningError
from swe_cli.pruning.prune import Scorer


def masks_of(model, which="linear", ratio=0.5):
    generator = torch.Generator().manual_seed(4)
    views = model.prunable(model.weights(), which)
    return {n: torch.rand(view.shape, generator=generator) >= ratio for n, view in views.items()}


def updated(model, how=None, which="linear", **options):
    """Its weights before, and the masks."""
    uncut = {name: weight.clone() for name, weight in model.weights().items()}
    masks, live = masks_of(model, which), calibrated(model, which, **options)
    live.update(how or update(), "update=own", live.lens(uncut), masks)
    return uncut, masks


def restored(model, uncut, prefixes):
    """The model with the weights of some blocks as they were uncut."""
    for name, weight in model.weights().items():
        if name.startswith(tuple(prefixes)):
            weight.copy_(uncut[name])
    return model


def assert_best(solved, uncut, kept, x):
    """Of each row the least squares on what the layer was fed."""
    gram = damped(x)
    best = errors(uncut, exactly(uncut, kept, gram), gram)
    assert (errors(uncut, solved, gram) <= 1.001 * best).all()
    masked = errors(uncut, uncut * kept, gram)
    assert best.sum() < 0.9 * masked.sum()


@pytest.mark.parametrize("name", ["attention.qkv", "mlp.expand", "mlp.contract"])
def test_the_second_block_makes_up_on_what_the_updated_first_one_gives(name):
    model = model_of()
    uncut, masks = updated(model)
    name = f"layers.1.{name}"
    solved = model.weights()[f"{name}.weight"].clone()
    # What its inputs were when it was asked: the first block done, its own not begun.
    x = inputs_of(restored(model, uncut, ["layers.1."]), model.get_submodule(name))
    assert_best(solved, uncut[f"{name}.weight"], masks[f"{name}.weight"], x)


def test_with_dense_inputs_every_block_makes_up_on_what_dense_ones_give():
    model, pruned = model_of(), model_of()
    uncut, masks = updated(model, inputs="dense")
    updated(pruned)
    name = "layers.1.mlp.contract.weight"
    solved = model.weights()[name].clone()
    assert not torch.equal(solved, pruned.weights()[name])
    first = "layers.0.mlp.contract.weight"
    assert torch.equal(model.weights()[first], pruned.weights()[first])
    x = inputs_of(restored(model, uncut, ["layers."]), model.layers[1].mlp.contract)
    assert_best(solved, uncut[name], masks[name], x)


def test_dense_inputs_are_those_of_a_model_that_is_not_cut_anywhere_yet():
    """Also where every block is reached by a pass of its own, and embeddings are cut, too."""
    model = Called("position", False, between=True)
    uncut, masks = updated(model, which="all", inputs="dense")
    for layer in ("layers.0.read", "layers.2.write"):
        name = f"{layer}.weight"
        whole = Called("position", False, between=True)
        x = inputs_of(whole, whole.get_submodule(layer))
        assert_best(model.weights()[name], uncut[name], masks[name], x)


@pytest.mark.parametrize("split_heads", [False, True])
def test_it_starts_from_the_uncut_weights_whatever_the_model_holds_by_then(split_heads):
    one, other = (model_of(split_heads=split_heads) for _ in range(2))
    uncut, masks = updated(one)
    live = calibrated(other)
    for name, view in live._views().items():
        view.mul_(masks[name]).add_(masks[name])  # as if something had been made up for
    live.update(update(), "update=own", live.lens(uncut), masks)
    for name, weight in one.weights().items():
        assert torch.equal(weight, other.weights()[name]), name
    for name, view in live._views().items():
        assert torch.equal(view == 0, ~masks[name]), name
    if split_heads:  # as the fused matrix would be
        rows = next(n for n in masks if n.startswith("layers.0.attention.qkv"))
        x = inputs_of(restored(one, uncut, ["layers."]), one.layers[0].attention.qkv)
        solved = live._views()[rows].clone()
        assert_best(solved, live.lens(uncut)[rows], masks[rows], x)


def test_what_is_no_matrix_of_a_block_is_masked_first_and_stays_what_it_was():
    model = model_of(bias=True)
    uncut, masks = updated(model, which="all")
    inside = model.prunable(uncut, "linear")
    for name, weight in model.weights().items():
        assert not weight[~masks[name]].any(), name
        if name not in inside:
            assert torch.equal(weight, uncut[name] * masks[name]), name
    name = "layers.0.attention.qkv.weight"
    solved = model.weights()[name].clone()
    x = inputs_of(restored(model, uncut, inside), model.layers[0].attention.qkv)
    assert_best(solved, uncut[name], masks[name], x)  # fed by embeddings that are cut


@pytest.mark.parametrize("by", ["position", "keyword"])
def test_blocks_of_another_library_are_updated_too(by):
    model = Called(by, by == "keyword", own=True)
    uncut, masks = updated(model)
    name = "layers.2.write.weight"
    solved = model.weights()[name].clone()
    x = inputs_of(restored(model, uncut, ["layers.2."]), model.layers[2].write)
    assert_best(solved, uncut[name], masks[name], x)


def test_where_nothing_is_cut_nothing_is_asked():
    class Never(Update):
        def solve(self, weight, kept, inputs):
            raise AssertionError

    model = model_of()
    live, uncut = calibrated(model), {n: w.clone() for n, w in model.weights().items()}
    kept = {name: torch.ones_like(view, dtype=torch.bool) for name, view in live._views().items()}
    live.update(Never(), "update=own", live.lens(uncut), kept)
    assert all(torch.equal(weight, uncut[name]) for name, weight in model.weights().items())


class Gives(Update):
    def __init__(self, what):
        self.what = what

    def solve(self, weight, kept, inputs):
        weight.zero_()  # which it may not, and which harms nobody
        return self.what(kept)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (lambda kept: torch.ones(3), "update=own gave layers.0.attention.qkv.weight another shape"),
        (lambda kept: torch.full(kept.shape, torch.nan), "or what is no number"),
        (lambda kept: None, r"update=own failed .*'NoneType' object has no attribute 'shape'"),
        (lambda kept: 1 / 0, r"update=own failed \(test_update.py, line .*ZeroDivisionError"),
    ],
)
def test_what_cannot_be_is_said_with_its_name(what, says):
    with pytest.raises(PruningError, match=says):
        updated(model_of(), Gives(what))


def test_what_is_cut_is_zero_whatever_an_update_gives_there():
    model = model_of()
    _, masks = updated(model, Gives(lambda kept: torch.where(kept, 2.0, torch.nan)))
    for name, mask in masks.items():
        assert torch.equal(model.weights()[name], 2.0 * mask)


def test_a_model_without_matrices_in_blocks_has_nothing_to_update():
    model = model_of()
    live = calibrated(model)
    live.lens = lambda tensors: {n: t for n, t in tensors.items() if n.startswith("token_")}
    uncut = live.lens({name: weight.clone() for name, weight in model.weights().items()})
    with pytest.raises(PruningError, match=r"finds no matrix of a block.*update=none"):
        live.update(update(), "update=own", uncut, {n: w != 0 for n, w in uncut.items()})


def test_without_a_calibration_set_nothing_is_updated():
    live = calibrated(model_of())
    scorer = Scorer(live.setup, live.lens, Evidence(live._views()))
    with pytest.raises(PruningError, match=r"given none\. Name one in its Spec: calibration="):
        _ = scorer.calibrated
