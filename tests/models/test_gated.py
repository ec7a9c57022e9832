"""Gated MLPs: the equations written out, gradients of gates that are off, skipping, loading."""

import copy

import pytest
import torch
from torch.nn import functional as F
from training.toys import batch_of, gpt

from swe_cli.files import read_tensors, write_tensors
from swe_cli.models.transformer import MLP, FactorizedMLP, GatedMLP
from swe_cli.pruning.shrink import load

VOCABULARY, WIDTH, BLOCKS = 11, 16, 4
SIZE = 4 * WIDTH // BLOCKS
BATCH = batch_of(VOCABULARY)
kinds = pytest.mark.parametrize("kind", ["published", "predicted", "soft"])


def gated(kind, *, bias=True, activation="gelu", seed=0):
    """Float64, with gates well on both sides of a half."""
    torch.manual_seed(seed)
    mlp = GatedMLP(kind, BLOCKS, WIDTH, dropout=0.0, activation=activation, bias=bias).double()
    for parameter in mlp.router.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return mlp


def inputs(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 5, WIDTH, generator=generator, dtype=torch.float64)


def by_hand(mlp, x):
    """Token by token and block by block, as the papers write it; S is sg(G) + g − sg(g)."""
    rows, router = [], mlp.router[mlp.kind]
    act = {"gelu": F.gelu, "relu": F.relu}[mlp.activation]
    for token in x.flatten(0, -2):
        scores = router.weight @ token
        g = 1 / (1 + torch.exp(-(scores if router.bias is None else scores + router.bias)))
        stopped = g.detach().tolist()
        active = sum(value > 0.5 for value in stopped)
        out = torch.zeros(WIDTH, dtype=torch.float64)
        for e in range(BLOCKS):
            own = slice(e * SIZE, (e + 1) * SIZE)
            read = mlp.expand.weight[own] @ token
            read = read if mlp.expand.bias is None else read + mlp.expand.bias[own]
            o = mlp.contract.weight[:, own] @ act(read)
            on, straight = stopped[e] > 0.5, g[e] - stopped[e]
            if mlp.kind == "published":
                s = (stopped[e] if on else 0.0) + straight
                out = out + (BLOCKS / max(1, active)) * s * o
            elif mlp.kind == "predicted":
                out = out + ((1.0 if on else 0.0) + straight) * o
            else:
                out = out + g[e] * o
        rows.append(out if mlp.contract.bias is None else out + mlp.contract.bias)
    return torch.stack(rows).view(x.shape)


@kinds
@pytest.mark.parametrize(("bias", "activation"), [(True, "gelu"), (False, "relu")])
def test_the_output_and_every_gradient_are_those_of_the_equations(kind, bias, activation):
    mlp, x = gated(kind, bias=bias, activation=activation), inputs().requires_grad_()
    on = mlp.gates(x) > 0.5
    assert on.any()
    assert not on.all()
    weigh = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    wanted = [x, *mlp.parameters()]
    found = mlp(x)
    expected = by_hand(mlp, x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    ours = torch.autograd.grad((found * weigh).sum(), wanted)
    theirs = torch.autograd.grad((expected * weigh).sum(), wanted)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_router_learns_of_blocks_that_are_off():
    """dL/dY of the predicted gate is Σ (W2_e h_e · dL/dout) σ'(g) x, on or off."""
    mlp, x = gated("predicted"), inputs()
    mlp(x).sum().backward()
    with torch.no_grad():
        hidden = F.gelu(mlp.expand(x)).unflatten(-1, (BLOCKS, SIZE))
        added = torch.einsum(
            "btes,ces->bte", hidden, mlp.contract.weight.unflatten(1, (BLOCKS, -1))
        )
        g = torch.sigmoid(mlp.router["predicted"](x))
        expected = torch.einsum("bte,btc->ec", added * g * (1 - g), x)
    torch.testing.assert_close(mlp.router["predicted"].weight.grad, expected)


def set_gates(mlp, scores):
    """Every token gets the same scores."""
    router = mlp.router[mlp.kind]
    with torch.no_grad():
        router.weight.zero_()
        if router.bias is not None:
            router.bias.copy_(torch.tensor(scores))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_all_on_is_the_dense_mlp_bit_for_bit(bias, dtype):
    mlp = gated("predicted", bias=bias).to(dtype)
    set_gates(mlp, [3.0, 0.1, 40.0, 1.0])
    dense = MLP(WIDTH, 0.0, "gelu", bias=bias).to(dtype)
    dense.load_state_dict({n: t for n, t in mlp.state_dict().items() if "router" not in n})
    x = inputs().to(dtype)
    assert torch.equal(mlp(x), dense(x))


def test_with_no_block_active_only_the_bias_is_added():
    for kind in ("published", "predicted"):
        mlp = gated(kind)
        set_gates(mlp, [-1.0] * BLOCKS)  # g = ½ of the published, which is not above it
        assert torch.equal(mlp(inputs()), mlp.contract.bias.expand(2, 5, -1))
        mlp = gated(kind, bias=False)
        set_gates(mlp, [-1.0] * BLOCKS)
        assert not mlp(inputs()).any()


def test_contributions_are_norms_of_what_blocks_add():
    mlp, x = gated("predicted", bias=True), inputs().flatten(0, -2)
    expected = torch.zeros(len(x), BLOCKS, dtype=torch.float64)
    for t, token in enumerate(x):
        h = F.gelu(mlp.expand.weight @ token + mlp.expand.bias)
        for e in range(BLOCKS):
            own = slice(e * SIZE, (e + 1) * SIZE)
            expected[t, e] = (mlp.contract.weight[:, own] @ h[own]).norm()
    torch.testing.assert_close(mlp.contributions(x), expected)


# In a model, by names


def model_of(name="gpt_nano", **options):
    return gpt(VOCABULARY, name, **{"layers": 3, "initialization": "torch", **options}).eval()


def named(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def routed(weights, *layers, kind="published", seed=0):
    generator, new = torch.Generator().manual_seed(seed), dict(weights)
    for index in layers:
        router = f"layers.{index}.mlp.router.{kind}"
        new[f"{router}.weight"] = torch.randn(BLOCKS, WIDTH, generator=generator)
        if kind == "predicted":
            new[f"{router}.bias"] = torch.randn(BLOCKS, generator=generator)
    return new


@kinds
@pytest.mark.parametrize("name", ["gpt_paper", "gpt_nano"])
def test_names_say_which_mlps_are_gated_and_how(name, kind, tmp_path):
    model = model_of(name)
    dense, expected = named(model), model(BATCH).logits
    new = routed(dense, 0, 2, kind=kind)
    load(model, new)
    assert {n: p.shape for n, p in model.named_parameters()} == {n: t.shape for n, t in new.items()}
    assert [isinstance(b.mlp, GatedMLP) for b in model.layers] == [True, False, True]
    assert not torch.equal(model(BATCH).logits, expected)
    write_tensors(tmp_path / "model.safetensors", named(model))
    other = model_of(name, seed=9)
    load(other, read_tensors(tmp_path / "model.safetensors"))
    assert torch.equal(model(BATCH).logits, other(BATCH).logits)
    load(model, dense)
    assert not any(isinstance(m, GatedMLP) for m in model.modules())
    assert torch.equal(model(BATCH).logits, expected)


def test_from_any_kind_to_any_other_in_one_live_model():
    model = model_of(bias=False)
    weights = named(model)
    factors = {n: t for n, t in weights.items() if not n.startswith("layers.1.mlp.")}
    for of, shape in {"left": (WIDTH, 3), "right": (64, 3), "core": (2, 3)}.items():
        factors[f"layers.1.mlp.{of}"] = torch.randn(shape)
    every = [routed(weights, 1, kind=k) for k in ("published", "predicted", "soft")]
    for state in (every[1], factors, every[0], every[2], factors, weights, every[1], weights):
        load(model, state)
        alone = model_of(bias=False, seed=5)
        load(alone, state)
        assert torch.equal(model(BATCH).logits, alone(BATCH).logits)
        assert isinstance(model.layers[1].mlp, FactorizedMLP) is (state is factors)


@pytest.mark.parametrize("training", [True, False])
def test_mode_dropout_and_what_is_frozen_stay(training):
    model = model_of(dropout=0.25).train(training)
    weights = named(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    state = torch.get_rng_state()
    load(model, routed(weights, 1, kind="predicted"))
    mlp = model.layers[1].mlp
    assert mlp.dropout.p == 0.25
    assert (mlp.training, mlp.dropout.training) == (training, training)
    assert not any(p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_is_gated_is_no_unit_and_its_matrices_are_prunable():
    model = model_of()
    weights = named(model)
    everything = model.prunable(weights, "linear")
    load(model, routed(weights, 1))
    assert list(model.prunable(named(model), "linear")) == list(everything)
    assert "layers.1.mlp.router.published.weight" in model.prunable(named(model), "all")
    assert [u.layer for u in model.units("neuron")] == ["layers.0.mlp", "layers.2.mlp"]


def test_a_model_that_was_evaluated_can_be_copied():
    model = model_of()
    load(model, routed(named(model), 1))
    with torch.inference_mode():
        expected = model(BATCH).logits
    assert torch.equal(copy.deepcopy(model)(BATCH).logits, expected)
