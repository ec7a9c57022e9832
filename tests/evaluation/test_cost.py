"""Costs by hand: C = 4, two heads of 2, T = 3, V = 5, one layer, a tied head, no biases."""

from types import SimpleNamespace

import pytest
import torch
from training.toys import gpt, setup_of

from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import DataShape
from swe_cli.evaluation.cost import activated, cost
from swe_cli.evaluation.loss import Evaluation
from swe_cli.pruning.shrink import load, shrink

SHAPE = DataShape(5)
EMBEDDINGS, NORMS = 5 * 4 + 3 * 4, 3 * 4
QKV, PROJECTION, MLP = 3 * 4 * 4, 4 * 4, 2 * 4 * 16
PARAMETERS = EMBEDDINGS + NORMS + QKV + PROJECTION + MLP  # 236
ATTENTION = 2 * (2 * 3 * 4)  # scores and values, a token: 2 · T · C each
HEAD = 2 * 4 * 5
PROTOCOL = Evaluation(split="test", batch_size=2, random_batches=0)
FLOPS = 2 * (QKV + PROJECTION + MLP) + ATTENTION + HEAD  # 472


def model_of(**options):
    return gpt(5, **{"width": 4, "heads": 2, "context": 3, **options})


def cost_of(model, shape=SHAPE):
    """As attributes: parameters, bytes, flops_per_token."""
    return SimpleNamespace(**dict(cost(setup_of(model, SimpleNamespace(shape=shape)))))


def named(model):
    return {name: weight.clone() for name, weight in model.weights().items()}


def test_dense():
    found = cost_of(model_of())
    assert (found.parameters, found.bytes, found.flops_per_token) == (236, 944, 472)
    assert (PARAMETERS, FLOPS) == (236, 472)


def test_layers_and_a_head_of_its_own_add_up():
    found = cost_of(model_of(layers=3, tied_head=False, head_bias=True))
    layer = QKV + PROJECTION + MLP
    assert found.parameters == EMBEDDINGS + 4 + 3 * (layer + 8) + 4 * 5 + 5
    assert found.flops_per_token == 3 * (2 * layer + ATTENTION) + HEAD


def test_bytes_are_those_of_the_dtype():
    found = cost_of(model_of().bfloat16())
    assert (found.parameters, found.bytes) == (236, 472)


def test_a_masked_model_is_no_smaller_and_no_faster():
    model = model_of()
    with torch.no_grad():
        for parameter in model.layers.parameters():
            parameter.zero_()
    masked, dense = cost_of(model), cost_of(model_of())
    for name in ("parameters", "bytes", "flops_per_token"):
        assert getattr(masked, name) == getattr(dense, name)
    blocks = sum(p.numel() for p in model.layers.parameters())
    assert dense.nonzeros - masked.nonzeros == sum(
        int(p.count_nonzero()) for p in model_of().layers.parameters()
    )
    matrices = sum(p.numel() for p in model.layers.parameters() if p.dim() == 2)
    assert masked.nonzero_flops_per_token == masked.flops_per_token - 2 * matrices
    assert matrices < blocks


def test_a_shrunk_model_is():
    model = model_of()
    weights = named(model)
    weights["layers.0.mlp.expand.weight"][:6] = 0  # six neurons of sixteen
    load(model, shrink(model, weights))
    found = cost_of(model)
    assert found.parameters == 236 - 2 * 4 * 6
    assert found.flops_per_token == 472 - 2 * (2 * 4 * 6)
    weights["layers.0.attention.projection.weight"][:, :2] = 0  # one head of two
    load(model, weights)
    load(model, shrink(model, weights))
    found = cost_of(model)
    assert found.parameters == 236 - 48 - 6 * 4 - 4 * 2
    assert found.flops_per_token == 472 - 96 - 2 * (24 + 8) - ATTENTION / 2


@pytest.mark.parametrize(
    ("core", "parameters", "flops"),
    [
        ((2, 2), 108 + 4 * 2 + 16 * 2 + 4, 216 + 2 * 2 * (4 * 2 + 16 * 2)),
        ((2, 2, 2), 108 + 4 * 2 + 16 * 2 + 8, 216 + 2 * 2 * (4 * 2 + 2 * 2 + 16 * 2)),
    ],
    ids=["cp", "tucker"],
)
def test_factors_are_counted_as_they_are_stored_and_multiplied(core, parameters, flops):
    model = model_of()
    weights = {n: t for n, t in named(model).items() if ".mlp." not in n}
    factors = {"left": torch.randn(4, 2), "right": torch.randn(16, 2), "core": torch.randn(core)}
    load(model, weights | {f"layers.0.mlp.{n}": t for n, t in factors.items()})
    found = cost_of(model)
    assert (found.parameters, found.flops_per_token) == (parameters, flops)


def test_factors_that_layers_share_are_stored_once_and_multiplied_in_each():
    model = model_of(layers=2)
    weights = {n: t for n, t in named(model).items() if ".mlp." not in n}
    factors = {"left": torch.randn(4, 2), "right": torch.randn(16, 2), "core": torch.randn(2, 2)}
    shared = {f"layers.0.mlp.{n}": t for n, t in factors.items()}
    load(model, weights | shared | {"layers.1.mlp.core": torch.randn(2, 2)})
    found = cost_of(model)
    assert found.parameters == EMBEDDINGS + 4 + 2 * (8 + QKV + PROJECTION) + 8 + 32 + 2 * 4
    layer = 2 * (QKV + PROJECTION) + ATTENTION + 2 * 2 * (4 * 2 + 16 * 2)
    assert found.flops_per_token == 2 * layer + HEAD


def gated_model(kind, scores, **options):
    """Blocks of a quarter of the neurons, on for every token where their score is positive."""
    model = model_of(**options)
    weights, router = named(model), f"layers.0.mlp.router.{kind}"
    weights[f"{router}.weight"] = torch.zeros(4, 4)
    if kind == "predicted":
        weights[f"{router}.bias"] = torch.tensor(scores)
    load(model, weights)
    return model


class Windows(SimpleNamespace):
    """Of tokens that do not matter."""

    shape = SHAPE

    def windows(self, split, *, context, size):
        tokens = torch.arange(2 * context).view(2, context) % 5
        return iter([{"tokens": tokens, "targets": tokens}] * 2)


@pytest.mark.parametrize(("kind", "active"), [("predicted", 3 / 4), ("published", 0), ("soft", 1)])
def test_idle_blocks_are_not_activated(kind, active):
    """Published and soft gates are ½ here, which is not above it."""
    model = gated_model(kind, [1.0, -1.0, 2.0, 0.1])
    found = {name: of.mean for name, of in activated(setup_of(model, Windows()), PROTOCOL)}
    router = 4 * 4 + (4 if kind == "predicted" else 0)
    assert found == {
        "active_blocks": active,
        "activated_parameters": PARAMETERS + router - (1 - active) * MLP,
        "activated_flops_per_token": FLOPS + 2 * 4 * 4 - (1 - active) * 2 * MLP,
    }


def test_biases_of_idle_neurons_are_idle():
    model = gated_model("predicted", [1.0, -1.0, -1.0, -1.0], bias=True)
    found = {name: of.mean for name, of in activated(setup_of(model, Windows()), PROTOCOL)}
    stored = sum(p.numel() for p in model.parameters())
    assert found["activated_parameters"] == stored - 0.75 * (MLP + 16)


def test_where_nothing_is_gated_nothing_is_said():
    assert not [*activated(setup_of(model_of(), Windows()), PROTOCOL)]


def test_an_image_is_paid_for_by_the_text_about_it():
    """Two towers of one layer, C = 4; N = 4 patches of 4 × 4 pixels; T = 12 − 4 positions of text.

    Only text positions come out of the head.
    """
    small = {"layers": 1, "heads": 2, "width": 4}
    options = {"vision": {**small, "patch": 4}, "language": {**small, "context": 12}}
    shape = DataShape(5, image=(3, 8, 8))
    model = component("model", "llava_nano", ConfigRoot(), options).build(shape)
    layer = 2 * (QKV + PROJECTION + MLP)
    vision = 4 * (2 * 48 * 4 + layer + 2 * (2 * 4 * 4))
    projector = 4 * 2 * (16 + 16)
    language = 12 * (layer + 2 * (2 * 12 * 4))
    found = cost_of(model, shape)
    assert found.flops_per_token == (vision + projector + language + 8 * HEAD) / 8
    assert found.parameters == sum(p.numel() for p in model.parameters())


def test_towers_are_idle_by_the_positions_that_they_read():
    """As above, and all blocks off in one tower: 4 patches or 12 positions about 8 of text."""
    small = {"layers": 1, "heads": 2, "width": 4}
    options = {"vision": {**small, "patch": 4}, "language": {**small, "context": 12}}
    shape = DataShape(5, image=(3, 8, 8))

    class Asked(SimpleNamespace):
        def windows(self, split, *, context, size):
            tokens = torch.zeros(3, context, dtype=torch.int64)
            images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
            image = torch.zeros(3, dtype=torch.int64)  # three questions about it
            yield {"tokens": tokens, "targets": tokens, "images": images, "image": image}

    for off, positions in (("vision", 4), ("language", 12)):
        model = component("model", "llava_nano", ConfigRoot(), options).build(shape)
        weights = named(model)
        for tower in ("vision", "language"):
            router = f"{tower}.layers.0.mlp.router.predicted"
            weights[f"{router}.weight"] = torch.zeros(4, 4)
            weights[f"{router}.bias"] = torch.full((4,), -1.0 if tower == off else 1.0)
        load(model, weights)
        setup = setup_of(model, Asked(shape=shape))
        found = {name: of.mean for name, of in activated(setup, PROTOCOL)}
        assert found["active_blocks"] == 0.5
        idle = cost_of(model, shape).flops_per_token - found["activated_flops_per_token"]
        assert idle == 2 * MLP * positions / 8
        inside = getattr(model, off).layers[0].mlp
        biases = 0 if inside.expand.bias is None else 16
        assert cost_of(model, shape).parameters - found["activated_parameters"] == MLP + biases


def test_the_model_is_left_as_it_was():
    model = model_of(dropout=0.5).train()
    before = torch.get_rng_state()
    cost_of(model)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(before, torch.get_rng_state())
