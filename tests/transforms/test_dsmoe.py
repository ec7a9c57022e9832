"""DSMoE: how its routers start, what they pay, and blocks that cannot be."""

import pytest
import torch
from training.toys import batch_of, dataset, gpt, setup_of

from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import IGNORED
from swe_cli.errors import PruningError, UsageError
from swe_cli.pruning.shrink import chosen_of, load, transform
from swe_cli.seeds import derive

DATA = dataset()
MLPS = ("layers.0.mlp", "layers.1.mlp")
kinds = pytest.mark.parametrize("router", ["published", "predicted", "soft"])


def dsmoe(**options):
    small = {"experts": 4, "samples": 8}
    return component("transform", "dsmoe", ConfigRoot(), small | options).build()


def model_of(**options):
    return gpt(DATA.shape.vocabulary_size, layers=2, **{"initialization": "torch", **options})


def named(model):
    return {name: weight.clone() for name, weight in model.weights().items()}


def lens_of(model):
    return lambda tensors: model.prunable(tensors, "linear")


def transformed(how, model=None, seed=3):
    model = model or model_of()
    setup = setup_of(model, DATA, seed=seed)
    tried = transform(setup, named(model), how, lens_of(model), batch_size=4)
    return setup, tried


# How it starts


@kinds
def test_every_mlp_gets_a_router_and_keeps_its_matrices(router):
    model, how = model_of(), dsmoe(router=router)
    weights = named(model)
    (candidate,) = how.candidates(lens_of(model)(weights))
    assert (candidate.layers, candidate.rank) == (MLPS, 0)
    new = how.apply(weights, candidate, 3)
    assert all(new[name] is weight for name, weight in weights.items())
    names = {f"{mlp}.router.{router}.weight" for mlp in MLPS}
    names |= {f"{mlp}.router.predicted.bias" for mlp in MLPS if router == "predicted"}
    assert new.keys() - weights.keys() == names
    assert -candidate.saves == sum(new[name].numel() for name in names)


def test_a_drawn_start_is_that_of_the_seed_and_of_the_layer():
    model, how = model_of(), dsmoe(router="published")
    weights = named(model)
    (candidate,) = how.candidates(lens_of(model)(weights))
    one, same, other = (how.apply(weights, candidate, seed) for seed in (1, 1, 2))
    for mlp in MLPS:
        name = f"{mlp}.router.published.weight"
        generator = torch.Generator().manual_seed(derive(1, f"transform/{mlp}"))
        assert torch.equal(one[name], 0.02 * torch.randn(4, 16, generator=generator))
        assert torch.equal(one[name], same[name])
        assert not torch.equal(one[name], other[name])


def test_a_predicted_router_starts_as_the_logistic_regression_of_the_largest_blocks():
    model, how = model_of(), dsmoe(router="predicted", target=0.25, samples=32)
    weights = named(model)
    setup, (tried,) = transformed(how, model)
    drawn = DATA.random_batch("train", size=32, context=16, seed=derive(3, "calibration"))
    dense = model_of()
    load(dense, weights)
    fed = {}
    for name in MLPS:
        mlp = dense.get_submodule(name)
        mlp.register_forward_pre_hook(lambda _, x, name=name: fed.update({name: x[0]}))
    with torch.no_grad():
        dense.eval()(drawn)
        for name in MLPS:
            x, mlp = fed[name].flatten(0, 1), dense.get_submodule(name)
            h = torch.nn.functional.gelu(mlp.expand(x)).chunk(4, -1)
            o = [a @ w.T for a, w in zip(h, mlp.contract.weight.chunk(4, 1), strict=True)]
            largest = torch.stack([of.norm(dim=1) for of in o], 1).argmax(1)  # 0.25 · 4 = 1
            wanted = torch.nn.functional.one_hot(largest, 4).float()
            weight, bias = (torch.zeros(4, 16), torch.ones(4))
            moments = [[torch.zeros_like(p), torch.zeros_like(p)] for p in (weight, bias)]
            for step in range(1, 151):  # Adam, written out
                error = (torch.sigmoid(x @ weight.T + bias) - wanted) / len(x)
                for p, g, m in zip(
                    (weight, bias), (error.T @ x, error.sum(0)), moments, strict=True
                ):
                    m[0] = 0.9 * m[0] + 0.1 * g
                    m[1] = 0.999 * m[1] + 0.001 * g * g
                    root = (m[1] / (1 - 0.999**step)).sqrt() + 1e-8
                    p -= 0.03 * (m[0] / (1 - 0.9**step)) / root
            router = setup.model.get_submodule(name).router["predicted"]
            torch.testing.assert_close(router.weight, weight, rtol=1e-2, atol=1e-3)
            torch.testing.assert_close(router.bias, bias, rtol=1e-2, atol=1e-3)
            given = setup.model.get_submodule(name).gates(x)
            right = float((given == wanted).float().mean())
            assert right > 1.05 * float((wanted == 0).float().mean())  # than always off
            assert not any(
                p.requires_grad is False or p.grad is not None for p in router.parameters()
            )
    assert (tried.rank, tried.saves_memory, tried.relative_error) == (0, False, 0.0)
    assert chosen_of([tried]) is tried


@kinds
def test_the_same_seed_gives_the_same_model(router):
    found = [named(transformed(dsmoe(router=router))[0].model) for _ in range(2)]
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_predicted_start_is_kept_not_that_before_it():
    setup, _ = transformed(dsmoe(router="predicted"))
    for mlp in MLPS:
        router = setup.model.get_submodule(mlp).router["predicted"]
        assert router.weight.any()
        assert not torch.equal(router.bias, torch.ones(4))


# What it pays


def paid(router, target=0.5):
    """The loss that recovery takes steps on, that of the model, and the gates g = σ(xY + b)."""
    setup, _ = transformed(dsmoe(router=router, target=target))
    model, how = setup.model.train(), dsmoe(router=router, target=target)
    torch.manual_seed(0)
    for mlp in MLPS:
        for parameter in model.get_submodule(mlp).router.parameters():
            torch.nn.init.normal_(parameter, std=0.7)
    batch = batch_of(DATA.shape.vocabulary_size, size=2)
    batch["targets"][0, 3:] = IGNORED
    plain = setup.mean_loss(batch)
    g = []
    for name in MLPS:
        mlp = model.get_submodule(name)
        g.append(torch.sigmoid(mlp.router[router](mlp.fed)))
    return setup.mean_loss(batch, how.learner(model, model)), plain, torch.stack(g), model


def gradients_of(loss, model):
    every = [*model.parameters()]  # what is paid reaches what lies before a router, too
    return torch.autograd.grad(loss, every, retain_graph=True, materialize_grads=True)


def assert_pays(with_it, plain, expected, model):
    torch.testing.assert_close(with_it - plain, expected)
    found = gradients_of(with_it - plain, model)
    for one, other in zip(found, gradients_of(expected, model), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_published_pays_the_mean_of_g_that_is_let_through():
    with_it, plain, g, model = paid("published")
    let = g > 0.5
    assert 0 < int(let.sum()) < let.numel()
    assert_pays(with_it, plain, (g * let).mean(), model)


@pytest.mark.parametrize("target", [0.25, 0.9])
def test_predicted_pays_ten_times_the_squared_distance_to_the_target(target):
    with_it, plain, g, model = paid("predicted", target)
    on = (g > 0.5).float()
    active = (on + g - g.detach()).mean()
    assert_pays(with_it, plain, 10 * (active - target) ** 2, model)


def test_soft_pays_nothing():
    model = model_of()
    assert dsmoe(router="soft").learner(model, model) is model


def test_a_recovery_s_own_loss_is_kept_below_what_is_paid():
    setup, _ = transformed(dsmoe(router="published"))
    batch = batch_of(DATA.shape.vocabulary_size)

    def doubled(given):
        losses, logits = setup.model(given)
        return type(setup.model(given))(2 * losses, logits)

    learner = dsmoe(router="published").learner(setup.model, doubled)
    one, two = setup.mean_loss(batch), setup.mean_loss(batch, learner)
    gates = [setup.model.get_submodule(mlp) for mlp in MLPS]
    expected = torch.stack([mlp.gates(mlp.fed).mean() for mlp in gates]).mean()
    torch.testing.assert_close(two - 2 * one, expected)


# What cannot be


@pytest.mark.parametrize(("experts", "fits"), [(7, 4), (63, 32), (1000, 64)])
def test_experts_that_do_not_divide_are_told_a_number_that_does(experts, fits):
    model = model_of()
    says = f"experts={experts} does not divide 64 hidden neurons. Write transform.experts={fits}$"
    with pytest.raises(UsageError, match=says):
        dsmoe(experts=experts).candidates(lens_of(model)(named(model)))
    assert dsmoe(experts=fits).candidates(lens_of(model)(named(model)))


def test_mlps_of_two_sizes_are_cut_into_a_number_that_divides_both():
    prunable = {"a.mlp.expand.weight": torch.ones(12, 3), "b.mlp.expand.weight": torch.ones(8, 2)}
    with pytest.raises(UsageError, match=r"divide 4 hidden.*experts=2"):
        dsmoe(experts=3).candidates(prunable)
    (candidate,) = dsmoe(experts=4, router="predicted").candidates(prunable)
    assert candidate.saves == -4 * (3 + 1 + 2 + 1)


def test_without_an_mlp_there_is_nothing_to_transform():
    with pytest.raises(PruningError, match="no dense MLP"):
        dsmoe().candidates({"projector.expand.weight": torch.zeros(4, 4)})
