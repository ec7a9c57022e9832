"""Units taken out for real: smaller, the same function, and loaded like any other."""

import pytest
import torch
from training.toys import batch_of, gpt, setup_of

from swe_cli.allocation.counts import Global, Uniform
from swe_cli.contracts import Evidence
from swe_cli.errors import PruningError
from swe_cli.patterns.shapes import Head, Neuron
from swe_cli.pruning.masks import apply_masks
from swe_cli.pruning.prune import MAGNITUDE, Method, Scorer, prune
from swe_cli.pruning.shrink import load, shrink

VOCABULARY = 11


def model_of(name="gpt_nano", **options):
    sizes = {"layers": 2, "heads": 4, "width": 16, "initialization": "torch"}
    return gpt(VOCABULARY, name, **{**sizes, **options})


def cut_units(model, pattern, ratio=0.5, allocation=None, which="linear"):
    def lens(tensors):
        return model.prunable(tensors, which)

    method = Method(MAGNITUDE, ratio, allocation=allocation or Uniform(), pattern=pattern)
    views = lens(model.weights())
    masks = prune(method, Scorer(setup_of(model, None), lens, Evidence(views)))
    apply_masks(masks, views)
    return model.weights(), masks


@pytest.mark.parametrize("which", ["linear", "all"])
@pytest.mark.parametrize("name", ["gpt_nano", "gpt_paper"])
@pytest.mark.parametrize("pattern", [Neuron(), Head()])
def test_the_smaller_model_computes_the_masked_ones_function(pattern, name, which):
    options = {"bias": True, "qkv_bias": True} if name == "gpt_nano" else {}
    model, batch = model_of(name, **options), batch_of(VOCABULARY)
    with torch.no_grad():
        for parameter in model.parameters():  # biases, too, must matter
            parameter.add_(0.1 * torch.randn_like(parameter))
    masked, _ = cut_units(model, pattern, which=which)
    masked = {name: weight.clone() for name, weight in masked.items()}
    model.eval()
    expected = model(batch).logits
    small = shrink(model, masked)
    assert sum(t.numel() for t in small.values()) < sum(t.numel() for t in masked.values())
    load(model, small)
    torch.testing.assert_close(model(batch).logits, expected, rtol=1e-5, atol=1e-5)
    attention, mlp = model.layers[0].attention, model.layers[0].mlp
    assert attention.qkv.out_features == (24 if pattern.unit == "head" else 48)
    assert mlp.expand.out_features == (32 if pattern.unit == "neuron" else 64)
    load(model, masked)  # and large again
    torch.testing.assert_close(model(batch).logits, expected)


def test_what_a_deaf_unit_always_says_is_folded_into_the_bias():
    """Unstructured cuts can leave a neuron without inputs: it still says act(b)."""
    model, batch = model_of(bias=True, qkv_bias=True), batch_of(VOCABULARY)
    weights = model.weights()
    with torch.no_grad():
        model.layers[0].mlp.expand.weight[:5] = 0
        model.layers[0].mlp.expand.bias[:5] = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0])
        model.layers[1].mlp.contract.weight[:, 7] = 0
        model.layers[1].attention.qkv.weight[32:36] = 0  # the values of the first head
        model.layers[1].attention.qkv.bias[32:36] = 0.7
    expected = model.eval()(batch).logits
    small = shrink(model, weights)
    load(model, small)
    assert model.layers[0].mlp.expand.out_features == 59
    assert model.layers[1].mlp.expand.out_features == 63
    assert model.layers[1].attention.qkv.out_features == 36
    torch.testing.assert_close(model(batch).logits, expected, rtol=1e-5, atol=1e-5)


def test_of_heads_that_are_all_deaf_one_stays():
    model, batch = model_of(bias=True, qkv_bias=True), batch_of(VOCABULARY)
    with torch.no_grad():
        model.layers[1].attention.qkv.weight[32:] = 0  # the values of all four
        model.layers[1].attention.qkv.bias[32:] = torch.arange(16.0) / 16
    expected = model.eval()(batch).logits
    small = shrink(model, model.weights())
    assert small["layers.1.attention.qkv.weight"].shape == (3 * 4, 16)
    assert small["layers.1.attention.projection.weight"].shape == (16, 4)
    load(model, small)
    torch.testing.assert_close(model(batch).logits, expected, rtol=1e-5, atol=1e-5)


def test_without_a_bias_to_fold_into_the_unit_stays():
    model = model_of(bias=True, qkv_bias=True)
    model.layers[0].mlp.contract.bias = None
    with torch.no_grad():
        model.layers[0].mlp.expand.weight[:2] = 0
        model.layers[0].mlp.expand.bias[:2] = torch.tensor([1.0, 0.0])
    small = shrink(model, model.weights())
    assert len(small["layers.0.mlp.expand.weight"]) == 63  # gelu(0) adds nothing


def test_a_dense_model_is_not_changed():
    model = model_of()
    weights = model.weights()
    small = shrink(model, weights)
    assert all(torch.equal(small[name], weights[name]) for name in weights)


def test_a_units_score_is_the_norm_of_all_its_weights():
    model = model_of()
    with torch.no_grad():
        model.layers[0].mlp.expand.weight[3] *= 1e-3
        model.layers[0].mlp.contract.weight[:, 3] *= 1e-3
        model.layers[1].mlp.expand.weight[5] *= 1e-3  # its column still speaks
    _, masks = cut_units(model, Neuron(), ratio=1 / 128, allocation=Global())
    assert not masks["layers.0.mlp.expand.weight"][3].any()
    assert not masks["layers.0.mlp.contract.weight"][:, 3].any()
    assert sum(int((~m).sum()) for m in masks.values()) == 2 * 16


def test_removing_every_head_of_a_layer_is_refused():
    model = model_of()
    with torch.no_grad():
        model.layers[1].attention.qkv.weight.mul_(1e-3)
        model.layers[1].attention.projection.weight.mul_(1e-3)
    with pytest.raises(PruningError, match=r"every head of layers\.1\.attention"):
        cut_units(model, Head(), allocation=Global())
    cut_units(model, Head(), allocation=Uniform())
