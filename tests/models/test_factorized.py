"""MLPs of factors: the same function as what they multiply out to, loaded by their names."""

import copy

import pytest
import torch
from training.toys import batch_of, gpt

from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import DataShape
from swe_cli.files import read_tensors, write_tensors
from swe_cli.models.transformer import MLP, FactorizedMLP
from swe_cli.pruning.shrink import fit, load

VOCABULARY, WIDTH, HIDDEN, RANK = 11, 16, 64, 5
BATCH = batch_of(VOCABULARY)


def model_of(name="gpt_paper", **options):
    return gpt(VOCABULARY, name, **{"layers": 3, "initialization": "torch", **options}).eval()


def named(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def core_of(kind, generator, rank=RANK):
    shape = (2, rank) if kind == "cp" else (2, rank, rank)
    return torch.randn(shape, generator=generator)


def factorised(weights, *layers, kind="cp", rank=RANK, seed=0):
    """``weights`` with factors drawn for the MLPs of ``layers``, shared by them."""
    generator = torch.Generator().manual_seed(seed)
    new = dict(weights)
    for index in layers:
        prefix = f"layers.{index}.mlp"
        for of in ("expand", "contract"):
            del new[f"{prefix}.{of}.weight"]
            if f"{prefix}.{of}.bias" in new:
                new[f"{prefix}.{of}_bias"] = new.pop(f"{prefix}.{of}.bias")
        new[f"{prefix}.core"] = core_of(kind, generator, rank)
    prefix = f"layers.{layers[0]}.mlp"
    new[f"{prefix}.left"] = torch.randn(WIDTH, rank, generator=generator) / 4
    new[f"{prefix}.right"] = torch.randn(HIDDEN, rank, generator=generator) / 8
    return new


def multiplied_out(model, weights):
    """Dense weights, from what the model's factors stand for."""
    dense = {n: t for n, t in weights.items() if ".mlp." not in n}
    for index, block in enumerate(model.layers):
        prefix = f"layers.{index}.mlp"
        if isinstance(block.mlp, MLP):
            dense |= {f"{prefix}.{n}": p.detach() for n, p in block.mlp.named_parameters()}
            continue
        expand, contract = block.mlp.matrices()
        dense |= {f"{prefix}.expand.weight": expand, f"{prefix}.contract.weight": contract}
        for of in ("expand", "contract"):
            if getattr(block.mlp, f"{of}_bias") is not None:
                dense[f"{prefix}.{of}.bias"] = weights[f"{prefix}.{of}_bias"]
    return dense


@pytest.mark.parametrize("kind", ["cp", "tucker"])
def test_the_matrices_are_those_of_the_formula(kind):
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(4, 3, generator=generator), torch.randn(16, 3, generator=generator)
    core = core_of(kind, generator, rank=3)
    factors = map(torch.nn.Parameter, (left, right, core))
    layer = FactorizedMLP(factors, dropout=0.0, activation="relu", bias=False)
    expand, contract = layer.matrices()
    k = [torch.diag(c) if kind == "cp" else c for c in core]
    torch.testing.assert_close(expand, right @ k[0].T @ left.T)
    torch.testing.assert_close(contract, left @ k[1] @ right.T)
    x = torch.randn(2, 5, 4, generator=generator)
    expected = torch.relu(x @ expand.T) @ contract.T
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["cp", "tucker"])
@pytest.mark.parametrize("layers", [(2,), (0, 1, 2), (0, 2)])
@pytest.mark.parametrize("name", ["gpt_paper", "gpt_nano"])
def test_the_forward_pass_is_that_of_the_matrices(name, layers, kind):
    model = model_of(name)
    weights = named(model)
    new = factorised(weights, *layers, kind=kind)
    load(model, new)
    assert {n: p.shape for n, p in model.named_parameters()} == {n: t.shape for n, t in new.items()}
    found = model(BATCH).logits
    dense = multiplied_out(model, new)
    load(model, dense)
    assert not any(isinstance(m, FactorizedMLP) for m in model.modules())
    torch.testing.assert_close(found, model(BATCH).logits, rtol=1e-5, atol=1e-5)
    load(model, weights)
    assert torch.equal(model(BATCH).logits, model_of(name)(BATCH).logits)


def test_dense_factorised_smaller_and_dense_again_in_one_live_model():
    model = model_of("gpt_nano")
    weights = named(model)
    expected = model(BATCH).logits
    shrunk = dict(weights)
    shrunk["layers.1.mlp.expand.weight"] = weights["layers.1.mlp.expand.weight"][:40]
    shrunk["layers.1.mlp.contract.weight"] = weights["layers.1.mlp.contract.weight"][:, :40]
    states = [
        shrunk,
        factorised(weights, 1),
        shrunk,
        factorised(weights, 0, 1, 2, kind="tucker"),
        factorised(weights, 1, 2, rank=3),
        factorised(weights, 0),
    ]
    alone = []
    for state in states:
        fresh = model_of("gpt_nano")
        load(fresh, state)
        alone.append(fresh(BATCH).logits)
    for state, logits in zip(states, alone, strict=True):
        load(model, state)
        assert torch.equal(model(BATCH).logits, logits)
    load(model, weights)
    assert torch.equal(model(BATCH).logits, expected)


def test_what_is_saved_gives_the_same_logits_when_it_is_read(tmp_path):
    model = model_of()
    load(model, factorised(named(model), 0, 2, kind="tucker"))
    path = tmp_path / "model.safetensors"
    write_tensors(path, named(model))
    other = model_of(seed=9)
    load(other, read_tensors(path))
    assert torch.equal(model(BATCH).logits, other(BATCH).logits)


def test_shared_factors_are_stored_counted_and_trained_once():
    model = model_of()
    load(model, factorised(named(model), 0, 1, 2))
    first, second, third = (block.mlp for block in model.layers)
    assert first.left is second.left is third.left
    assert first.right is third.right
    assert first.core is not second.core
    lefts = [n for n, _ in model.named_parameters() if n.endswith("left")]
    assert lefts == ["layers.0.mlp.left"]
    before = first.left.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(BATCH).losses.mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    optimizer.step()
    assert not torch.equal(first.left, before)
    copied = copy.deepcopy(model)
    assert copied.layers[0].mlp.left is copied.layers[2].mlp.left


def test_factors_of_their_own_are_not_shared():
    model = model_of()
    weights = named(model)
    both = factorised(factorised(weights, 0, seed=1), 2, seed=2)
    load(model, both)
    assert model.layers[0].mlp.left is not model.layers[2].mlp.left
    assert torch.equal(model.layers[2].mlp.left, both["layers.2.mlp.left"])
    assert isinstance(model.layers[1].mlp, MLP)


def test_a_core_without_factors_fits_nothing():
    model = model_of()
    weights = factorised(named(model), 0)
    del weights["layers.0.mlp.left"], weights["layers.0.mlp.right"]
    fit(model, weights)
    assert isinstance(model.layers[0].mlp, MLP)


@pytest.mark.parametrize("which", ["linear", "all"])
def test_what_is_factorised_is_neither_prunable_nor_a_unit(which):
    model = model_of()
    weights = named(model)
    everything = model.prunable(weights, which)
    load(model, factorised(weights, 1))
    shown = model.prunable(dict(model.named_parameters()), which)
    assert list(shown) == [n for n in everything if not n.startswith("layers.1.mlp.")]
    assert list(model.prunable(weights, which)) == list(everything)  # whatever the model holds
    assert [u.layer for u in model.units("neuron")] == ["layers.0.mlp", "layers.2.mlp"]
    assert len(model.units("head")) == 3


@pytest.mark.parametrize("training", [True, False])
def test_mode_dropout_and_what_is_frozen_stay(training):
    model = model_of(dropout=0.25).train(training)
    weights = named(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    state = torch.get_rng_state()
    for _ in range(2):
        for given in (factorised(weights, 1), weights):
            load(model, given)
            mlp = model.layers[1].mlp
            assert isinstance(mlp, MLP if given is weights else FactorizedMLP)
            assert mlp.dropout.p == 0.25
            assert (mlp.training, mlp.dropout.training) == (training, training)
            assert mlp.activation == "relu"
            assert not any(p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_towers_inside_a_model_are_factorised_by_their_names():
    small = {"layers": 2, "heads": 2, "width": 16}
    options = {"vision": {**small, "patch": 4}, "language": {**small, "context": 12}}
    model = component("model", "llava_nano", ConfigRoot(), options).build(DataShape(13, (3, 8, 8)))
    weights = named(model)
    new = dict(weights)
    for tower in ("vision.", "language."):
        inside = {n.removeprefix(tower): t for n, t in weights.items() if n.startswith(tower)}
        new = {n: t for n, t in new.items() if not n.startswith(tower)}
        new |= {tower + n: t for n, t in factorised(inside, 0, 1).items()}
    load(model, new)
    assert {n: p.shape for n, p in model.named_parameters()} == {n: t.shape for n, t in new.items()}
    assert all(torch.equal(p, new[n]) for n, p in model.named_parameters())
    vision, language = model.vision.layers, model.language.layers
    assert vision[0].mlp.left is vision[1].mlp.left
    assert language[0].mlp.left is language[1].mlp.left is not vision[0].mlp.left
    assert [u.layer for u in model.units("neuron")] == ["projector"]
    assert {model.role_of(n) for n in new} == set(model.roles)
