"""Every model: shapes, ignored targets, prunable views, blocks."""

import pytest
import torch

from swe_cli.contracts import IGNORED

from .conftest import SHAPE, VOCABULARY, names, small_model

pytestmark = pytest.mark.parametrize("name", names("model"))


def batch(model, windows=3):
    generator = torch.Generator().manual_seed(1)
    shape = (windows, model.context)
    tokens, targets = (torch.randint(VOCABULARY, shape, generator=generator) for _ in range(2))
    targets[0, :2] = targets[-1, -1] = IGNORED
    images = torch.randint(256, (2, *SHAPE.image), generator=generator, dtype=torch.uint8)
    image = torch.arange(windows) % 2
    return {"tokens": tokens, "targets": targets, "images": images, "image": image}


def test_losses_and_logits_have_their_shapes_and_ignored_targets_cost_nothing(name):
    model = small_model(name)
    given = batch(model)
    losses, logits = model(given)
    ignored = given["targets"] == IGNORED
    assert losses.shape == given["targets"].shape
    assert logits.shape == (*given["targets"].shape, VOCABULARY)
    assert losses.dtype is torch.float32
    assert (losses[ignored] == 0).all()
    assert (losses[~ignored] > 0).all()
    expected = -logits.float().log_softmax(-1)[~ignored]
    torch.testing.assert_close(
        losses[~ignored], expected.gather(1, given["targets"][~ignored][:, None])[:, 0]
    )


def test_shorter_windows_are_taken_too(name):
    model = small_model(name)
    whole = batch(model)
    short = whole | {key: whole[key][:, :3] for key in ("tokens", "targets")}
    assert model(short).losses.shape == (3, 3)


@pytest.mark.parametrize("which", ["linear", "all"])
def test_prunable_tensors_are_views_and_no_weight_is_shown_twice(name, which):
    model = small_model(name)
    with torch.no_grad():
        parameters = dict(model.named_parameters())
        shown = model.prunable(parameters, which)
        total = sum(p.numel() for p in parameters.values())
        for tensor in shown.values():
            tensor.zero_()
    assert shown
    cut = sum(t.numel() for t in shown.values())
    zeroed = sum(int((p == 0).sum()) for p in model.parameters())
    assert cut == total if which == "all" else 0 < cut < total
    before = sum(int((p == 0).sum()) for p in small_model(name).parameters())
    assert cut <= zeroed <= cut + before  # they alias, and none twice


def test_the_lens_serves_anything_keyed_by_parameter_name(name):
    model = small_model(name)
    numbered = {n: torch.full_like(p, i) for i, (n, p) in enumerate(model.named_parameters())}
    with torch.no_grad():
        mine = model.prunable(dict(model.named_parameters()), "linear")
    others = model.prunable(numbered, "linear")
    assert list(mine) == list(others)
    assert all(mine[n].shape == others[n].shape for n in mine)
    assert all(len(tensor.unique()) == 1 for tensor in others.values())


def test_there_are_blocks_and_they_hold_the_prunable_matrices(name):
    model = small_model(name)
    blocks = model.blocks()
    inside = {id(p) for block in blocks for p in block.parameters()}
    linear = model.prunable(model.weights(), "linear")
    held = sum(p.numel() for p in model.parameters() if id(p) in inside and p.dim() > 1)
    assert len(blocks) > 0
    assert sum(t.numel() for t in linear.values()) <= held


@pytest.mark.parametrize("which", ["linear", "all"])
def test_every_prunable_tensor_belongs_to_a_role_and_every_role_has_some(name, which):
    model = small_model(name)
    shown = model.prunable(model.weights(), which)
    assert {model.role_of(n) for n in shown} == set(model.roles)


def test_the_lens_leaves_out_what_it_is_not_given(name):
    model = small_model(name)
    parameters = model.weights()
    role = model.roles[0]
    some = {n: p for n, p in parameters.items() if model.role_of(n) == role}
    expected = [n for n in model.prunable(parameters, "all") if model.role_of(n) == role]
    assert list(model.prunable(some, "all")) == expected


def test_every_weight_learns(name):
    model = small_model(name)
    model(batch(model)).losses.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
