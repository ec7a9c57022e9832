"""TRAWL against tensors whose factors are known, and options that cannot be."""

import sys

import pytest
import torch
from training.toys import gpt

from swe_cli.config import ConfigRoot, component
from swe_cli.errors import PruningError, UsageError
from swe_cli.transforms.trawl import TRAWL

WIDTH, HIDDEN = 6, 24


def trawl(**options):
    chosen = {"method": "cp", "stack": "layer", "layers": "all", "ranks": [2], "iterations": 500}
    return TRAWL(**{**chosen, **options})


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).float()


def named(tensor):
    """T (2L, d, 4d) as the weights of L MLPs, and a parameter that is none of theirs."""
    weights = {"norm.weight": torch.ones(3)}
    for index in range(len(tensor) // 2):
        weights[f"layers.{index}.mlp.expand.weight"] = tensor[2 * index].T.contiguous()
        weights[f"layers.{index}.mlp.contract.weight"] = tensor[2 * index + 1]
    return weights


def multiplied_out(factors):
    """T by the textbook's formula, from the names."""
    layers = sorted(name.removesuffix(".core") for name in factors if name.endswith(".core"))
    left, right = factors[f"{layers[0]}.left"], factors[f"{layers[0]}.right"]
    core = torch.cat([factors[f"{layer}.core"] for layer in layers])
    formula = "sr,dr,hr->sdh" if core.dim() == 2 else "srq,dr,hq->sdh"
    return torch.einsum(formula, core, left, right)


def factorised(tensor, seed=0, **options):
    how, weights = trawl(**options), named(tensor)
    (candidate,) = how.candidates(weights)
    return how.apply(weights, candidate, seed)


@pytest.mark.parametrize("stacked", [2, 6])
@pytest.mark.parametrize("method", ["cp", "tucker"])
def test_a_tensor_that_is_of_rank_two_is_found_again(method, stacked):
    a, b, c = drawn(stacked, 2, seed=1), drawn(WIDTH, 2, seed=2), drawn(HIDDEN, 2, seed=3)
    tensor = torch.einsum("sr,dr,hr->sdh", a, b, c)
    options = {"stack": "layer" if stacked == 2 else "all", "method": method}
    found = factorised(tensor, **options)
    assert found["layers.0.mlp.left"].shape == (WIDTH, 2)
    assert found["layers.0.mlp.right"].shape == (HIDDEN, 2)
    assert found["layers.0.mlp.core"].shape == ((2, 2) if method == "cp" else (2, 2, 2))
    torch.testing.assert_close(multiplied_out(found), tensor, rtol=0, atol=1e-4)


def test_rank_one_by_hand():
    """T = (3, −1) ∘ (0, 1) ∘ (1, 0, 0, 0, 0, 0, 0, 0): columns of norm 1, the rest in the core."""
    tensor = torch.zeros(2, 2, 8)
    tensor[0, 1, 0], tensor[1, 1, 0] = 3.0, -1.0
    found = factorised(tensor, ranks=[1])
    left, right, core = (found[f"layers.0.mlp.{of}"] for of in ("left", "right", "core"))
    torch.testing.assert_close(left[:, 0].abs(), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(right[:, 0].abs(), torch.eye(8)[0])
    sign = left[1, 0] * right[0, 0]
    torch.testing.assert_close(sign * core[:, 0], torch.tensor([3.0, -1.0]))


@pytest.mark.parametrize("rank", [WIDTH, 2 * WIDTH])
def test_full_rank_tucker_is_the_tensor_itself(rank):
    """Of any tensor at 2d, the rank of its third unfolding; at d where both matrices read alike."""
    tensor = drawn(2, WIDTH, HIDDEN)
    if rank == WIDTH:
        tensor[1] = drawn(WIDTH, WIDTH, seed=1) @ tensor[0]
    found = factorised(tensor, method="tucker", ranks=[rank], iterations=5)
    assert found["layers.0.mlp.left"].shape == (WIDTH, WIDTH)
    assert found["layers.0.mlp.core"].shape == (2, WIDTH, rank)
    torch.testing.assert_close(multiplied_out(found), tensor, rtol=0, atol=1e-4)


def test_tucker_of_a_matrix_is_its_best_approximation():
    """With an empty second slice, that of Eckart and Young."""
    tensor = drawn(2, WIDTH, HIDDEN)
    tensor[1] = 0
    found = factorised(tensor, method="tucker", ranks=[3], iterations=50)
    u, s, v = torch.linalg.svd(tensor[0], full_matrices=False)
    best = (u[:, :3] * s[:3]) @ v[:3]
    torch.testing.assert_close(multiplied_out(found)[0], best, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ["cp", "tucker"])
def test_a_higher_rank_comes_closer(method):
    tensor = drawn(2, WIDTH, HIDDEN)
    errors = []
    for rank in (1, 2, 4, 6):
        found = factorised(tensor, method=method, ranks=[rank], iterations=100)
        errors.append(float((multiplied_out(found) - tensor).norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1.2 * errors[-1]


def test_cp_starts_from_the_seed_and_only_from_it():
    tensor = drawn(2, WIDTH, HIDDEN)
    one, same, other = (factorised(tensor, seed, iterations=3) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["layers.0.mlp.core"], other["layers.0.mlp.core"])


@pytest.mark.parametrize("method", ["cp", "tucker"])
def test_weights_that_are_all_zero_stay_zero(method):
    found = factorised(torch.zeros(2, WIDTH, HIDDEN), method=method)
    assert not multiplied_out(found).any()


def test_the_rest_is_handed_on_and_biases_are_renamed():
    weights = {n: p.detach() for n, p in gpt(11, layers=2, bias=True).named_parameters()}
    how = trawl(layers=[-1], iterations=2)
    (candidate,) = how.candidates(weights)
    new = how.apply(weights, candidate, 0)
    gone = {n for n in weights if n.startswith("layers.1.mlp.")}
    assert len(gone) == 4
    assert all(new[n] is weights[n] for n in weights.keys() - gone)
    assert {n.removeprefix("layers.1.mlp.") for n in new.keys() - weights.keys()} == {
        "left", "right", "core", "expand_bias", "contract_bias"
    }  # fmt: skip
    assert new["layers.1.mlp.expand_bias"] is weights["layers.1.mlp.expand.bias"]


# The grid


def test_the_grid_is_layers_by_ranks_in_the_order_of_the_model():
    weights = named(drawn(8, WIDTH, HIDDEN))
    grid = trawl(layers=[-1, 0, 3], ranks=[3, 1, 3]).candidates(weights)
    assert [(c.layers, c.rank) for c in grid] == [
        (("layers.0.mlp",), 3),
        (("layers.0.mlp",), 1),
        (("layers.3.mlp",), 3),
        (("layers.3.mlp",), 1),
    ]
    (whole,) = trawl(stack="all", layers=[2, -4], ranks=[3]).candidates(weights)
    assert whole.layers == ("layers.0.mlp", "layers.2.mlp")


@pytest.mark.parametrize(
    ("method", "rank", "stored"),
    [("cp", 1, 2 + 6 + 24), ("cp", 9, 9 * 32), ("tucker", 6, 5 * 6 * 6 + 2 * 36)],
)
def test_what_is_saved_by_hand(method, rank, stored):
    (candidate,) = trawl(method=method, ranks=[rank]).candidates(named(drawn(2, WIDTH, HIDDEN)))
    assert candidate.saves == 8 * 36 - stored


def test_cp_saves_memory_below_the_rank_of_the_docstring():
    limit = 8 * WIDTH**2 / (5 * WIDTH + 2)  # not a whole number only where that is no tie
    grid = trawl(ranks=list(range(1, 13))).candidates(named(drawn(2, WIDTH, HIDDEN)))
    assert [c.rank for c in grid if c.saves > 0] == [r for r in range(1, 13) if r < limit]


# What cannot be


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ranks": []}, "must not be empty"),
        ({"layers": []}, "must not be empty"),
        ({"ranks": [4, 0]}, "at least 1"),
        ({"stack": "all", "layers": [-1]}, "transform.layers=all"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, says):
    with pytest.raises(UsageError, match=says):
        trawl(**options)


def test_iterations_are_counted_from_one():
    with pytest.raises(UsageError, match=r"transform\.iterations=0 must be at least 1"):
        _ = component("transform", "trawl_cp", ConfigRoot(), {"iterations": 0}).instance


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layers": [2]}, "no layer 2 among 2.* Choose from -2 to 1"),
        ({"layers": [-3]}, "no layer -3"),
        ({"ranks": [13]}, "13 is more than MLPs of width 6 allow. Choose ranks up to 12"),
        ({"ranks": [13], "method": "tucker"}, "up to 12"),
        ({"ranks": [25], "stack": "all"}, "up to 24"),
    ],
)
def test_options_that_the_model_does_not_allow_are_refused(options, says):
    with pytest.raises(UsageError, match=says):
        trawl(**options).candidates(named(drawn(4, WIDTH, HIDDEN)))


def test_towers_are_not_stacked_on_one_another():
    weights = named(drawn(4, WIDTH, HIDDEN))
    towers = {f"{tower}.{n}": t for tower in ("vision", "language") for n, t in weights.items()}
    with pytest.raises(UsageError, match="roles=language"):
        trawl(stack="all").candidates(towers)
    assert len(trawl().candidates(towers)) == 4


def test_without_an_mlp_there_is_nothing_to_transform():
    with pytest.raises(PruningError, match="no dense MLP"):
        trawl().candidates({"projector.expand.weight": torch.zeros(4, 4)})


def test_weights_that_are_factors_or_not_finite_are_refused():
    tensor = drawn(2, WIDTH, HIDDEN)
    how = trawl(iterations=2)
    (candidate,) = how.candidates(named(tensor))
    with pytest.raises(PruningError, match="factorised already"):
        how.apply(factorised(tensor, iterations=2), candidate, 0)
    tensor[1, 2, 3] = torch.nan
    with pytest.raises(PruningError, match=r"layers\.0\.mlp are not all finite"):
        how.apply(named(tensor), candidate, 0)


def test_a_missing_package_is_named_when_the_transform_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorly", None)
    how, weights = trawl(), named(drawn(2, WIDTH, HIDDEN))
    (candidate,) = how.candidates(weights)
    with pytest.raises(UsageError, match=r"pip install 'swe-cli\[trawl\]'"):
        how.apply(weights, candidate, 0)
