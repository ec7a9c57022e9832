"""The best weights for a mask: by hand, and against a float64 solve of every row."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import LayerInputs
from swe_cli.errors import PruningError, SweWarning
from swe_cli.updates.least_squares import LeastSquares


def update(**options):
    return component("update", "least_squares", ConfigRoot(), options).build()


def fed(x):
    x = x.float()
    return LayerInputs(x.square().sum(0), x.T @ x)


def damped(x, damping=0.01):
    """G, float64."""
    gram = x.double().T @ x.double()
    return gram + damping * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)


def errors(weight, solved, gram):
    """(W − Ŵ) G (W − Ŵ)ᵀ of every row."""
    apart = (weight - solved).double()
    return ((apart @ gram) * apart).sum(1)


def exactly(weight, kept, gram):
    """A dense solve for each row, float64."""
    solved = torch.zeros_like(weight, dtype=torch.float64)
    for row, stays in enumerate(kept):
        at = stays.nonzero()[:, 0]
        wanted = (gram @ weight[row].double())[at]
        solved[row, at] = torch.linalg.solve(gram[at][:, at], wanted)
    return solved


# XᵀX = [[2, 1, 0], [1, 2, 0], [0, 0, 1]], its mean diagonal 5/3.
X = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
WEIGHT = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
KEPT = torch.tensor([[False, True, True], [True, False, False]])


@pytest.mark.parametrize(
    ("damping", "expected"),
    [
        (0.0, [[0.0, 2 + 1 / 2, 3.0], [4 + 5 / 2, 0.0, 0.0]]),
        (0.6, [[0.0, 2 + 1 / 3, 3.0], [4 + 5 / 3, 0.0, 0.0]]),  # λ = 1: G = [[3, 1], [1, 3]]
    ],
)
def test_two_rows_of_three_by_hand(damping, expected):
    weight, kept = WEIGHT.clone(), KEPT.clone()
    solved = update(damping=damping).solve(weight, kept, fed(X))
    torch.testing.assert_close(solved, torch.tensor(expected))
    assert torch.equal(solved == 0, ~KEPT)
    assert torch.equal(weight, WEIGHT)
    assert torch.equal(kept, KEPT)


def test_a_row_that_loses_nothing_or_everything():
    kept = torch.tensor([[True, True, True], [False, False, False]])
    solved = update().solve(WEIGHT, kept, fed(X))
    assert torch.equal(solved, WEIGHT * kept)


def correlated(tokens, columns, generator):
    """What a layer after a GELU is fed: few causes, a mean that all inputs share."""
    causes = torch.randn(tokens, 16, generator=generator)
    mixed = causes @ torch.randn(16, columns, generator=generator) + 1
    return torch.nn.functional.gelu(mixed)


def white(tokens, columns, generator):
    return torch.randn(tokens, columns, generator=generator)


def of_a_power_law(tokens, columns, generator):
    """Its k-th direction is fed 1/k: an ill-conditioned one."""
    turned = torch.linalg.qr(torch.randn(columns, columns, generator=generator))[0]
    return torch.randn(tokens, columns, generator=generator) / torch.arange(1, columns + 1) @ turned


def with_dead_inputs(tokens, columns, generator):
    x = correlated(tokens, columns, generator)
    x[:, ::5] = 0
    return x


def at_random(weight, generator):
    return torch.rand(weight.shape, generator=generator) > 0.6


def two_of_four(weight, generator):
    order = torch.rand(len(weight), weight.shape[1] // 4, 4, generator=generator)
    return (order.argsort(2).argsort(2) < 2).view(weight.shape)


def whole_columns(weight, generator):
    return (torch.rand(weight.shape[1], generator=generator) > 0.5).expand_as(weight).clone()


def whole_rows(weight, generator):
    kept = at_random(weight, generator)
    kept[::3] = False
    kept[1::3] = True
    return kept


INPUTS = [white, correlated, of_a_power_law, with_dead_inputs]
MASKS = [at_random, two_of_four, whole_columns, whole_rows]
WIDTHS = [8, 96, 384, pytest.param(1536, marks=pytest.mark.slow)]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("mask", MASKS)
def test_no_row_is_a_thousandth_worse_than_a_dense_solve(width, inputs, mask):
    generator = torch.Generator().manual_seed(width)
    x = inputs(2 * width, width, generator)
    weight = torch.randn(6, width, generator=generator)
    kept = mask(weight, generator)
    solved, gram = update().solve(weight, kept, fed(x)), damped(x)
    best = errors(weight, exactly(weight, kept, gram), gram)
    assert (errors(weight, solved, gram) <= 1.001 * best).all()
    assert not solved[~kept].any()
    assert torch.equal(solved[kept.all(1)], weight[kept.all(1)])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 4), st.floats(0, 1))
def test_it_is_never_worse_than_the_masked_weights(seed, columns, rows, share):
    generator = torch.Generator().manual_seed(seed)
    x = white(7, columns, generator) * torch.exp(2 * torch.randn(columns, generator=generator))
    weight = torch.randn(rows, columns, generator=generator)
    kept = torch.rand(rows, columns, generator=generator) >= share
    solved, gram = update().solve(weight, kept, fed(x)), damped(x)
    masked = errors(weight, weight * kept, gram)
    assert (errors(weight, solved, gram) <= masked * (1 + 1e-5)).all()
    assert not solved[~kept].any()


def admm(weight, kept, x, steps=20):
    """As published (Boža 2024, arXiv 2401.02938): on normalised columns, ρ = 1, damping 0.1."""
    gram = x.double().T @ x.double()
    norms = gram.diagonal().sqrt()
    gram = gram / torch.outer(norms, norms) + 0.1 * torch.eye(len(gram), dtype=torch.float64)
    inverse = torch.linalg.inv(gram + torch.eye(len(gram), dtype=torch.float64))
    mask, start = kept.T.double(), weight.double().T * norms[:, None]  # (in, out)
    now, dual = start, torch.zeros_like(start)
    for _ in range(steps):
        chosen = mask * (now + dual)
        dual = dual + now - chosen
        now = inverse @ (gram @ start + chosen - dual)
    return (mask * (now + dual) / norms[:, None]).T


@pytest.mark.parametrize("steps", [20, 100])
@pytest.mark.parametrize("inputs", [white, correlated, of_a_power_law])
def test_admm_does_no_better(inputs, steps):
    generator = torch.Generator().manual_seed(2)
    x = inputs(400, 64, generator)
    weight = torch.randn(24, 64, generator=generator)
    kept, gram = at_random(weight, generator), damped(x)
    ours = errors(weight, update().solve(weight, kept, fed(x)), gram)
    theirs = errors(weight, admm(weight, kept, x, steps), gram)
    masked = errors(weight, weight * kept, gram)
    assert (ours <= theirs * (1 + 1e-6)).all()
    if inputs is not white:  # where there is much to make up for, theirs does so, too
        assert theirs.sum() < masked.sum()


def test_what_comes_in_dead_is_left_as_it_was():
    x = torch.zeros(30, 4)
    x[:, :2] = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    kept = torch.tensor([[False, True, True, False]])
    for damping in (0.0, 0.01):
        solved = update(damping=damping).solve(torch.full((1, 4), 5.0), kept, fed(x))
        assert solved[0, 2] == 5.0
    silent = update(damping=0.0).solve(torch.full((1, 4), 5.0), kept, fed(torch.zeros(3, 4)))
    assert silent.tolist() == [[0.0, 5.0, 5.0, 0.0]]


def test_steps_that_do_not_suffice_are_said():
    generator = torch.Generator().manual_seed(1)
    x, weight = correlated(90, 32, generator), torch.randn(3, 32, generator=generator)
    kept = at_random(weight, generator)
    with pytest.warns(SweWarning, match=r"stopped after 2 steps, where .* Raise update.steps"):
        solved = update(steps=2).solve(weight, kept, fed(x))
    errs = [errors(weight, of, damped(x)) for of in (solved, weight * kept)]
    assert (errs[0] < errs[1]).all()


def test_inputs_that_are_not_finite_are_refused():
    x = X.clone()
    x[1, 2] = torch.inf
    with pytest.raises(PruningError, match="inputs of a layer are not finite"):
        update().solve(WEIGHT, KEPT, fed(x))


def test_its_yaml_has_the_damping_of_sparsegpt():
    sparsegpt = component("criterion", "sparsegpt", ConfigRoot()).options
    assert update() == LeastSquares(damping=sparsegpt["damping"], tolerance=1e-4, steps=500)
