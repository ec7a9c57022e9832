"""Wanda, FLAP and SparseGPT on layers that are worked by hand or solved exactly."""

import pytest
import torch

from swe_cli.contracts import LayerInputs
from swe_cli.criteria.layers import FLAP, RIA, SparseGPT, Wanda
from swe_cli.errors import PruningError, SweWarning


def fed(x):
    return LayerInputs(x.square().sum(0), x.T @ x, x.sum(0), len(x))


class Choose:
    """The ``count`` lowest of every row of what is asked, or of every group of ``group``."""

    def __init__(self, count, group=None):
        self.count, self.group = count, group

    def __call__(self, scores, first):
        return scores.argsort(1).argsort(1) >= self.count


def exact(**options):
    return SparseGPT(**{"damping": 0.0, "block": 128, **options})


def test_wanda_by_hand():
    weight = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
    inputs = fed(torch.tensor([[3.0, 0.0], [4.0, 1.0]]))  # norms 5 and 1
    assert Wanda().score_layer(weight, inputs).tolist() == [[5.0, 2.0], [15.0, 0.5]]
    kept = Wanda().prune_layer(weight, inputs, Choose(1))
    assert kept.tolist() == [[True, False], [True, False]]
    assert weight.tolist() == [[1.0, 0.0], [3.0, 0.0]]


def test_ria_by_hand():
    weight = torch.tensor([[1.0, -2.0], [3.0, 0.0]])
    inputs = fed(torch.tensor([[0.0, 3.0], [4.0, 0.0], [0.0, 4.0]]))  # norms 4 and 5, roots 2, √5
    score = RIA(power=0.5).score_layer(weight, inputs)
    # Columns sum to 4 and 2, rows to 3 and 3.
    by_hand = [[(1 / 4 + 1 / 3) * 2, (2 / 2 + 2 / 3) * 5**0.5], [(3 / 4 + 3 / 3) * 2, 0.0]]
    torch.testing.assert_close(score, torch.tensor(by_hand))
    kept = RIA(power=0.5).prune_layer(weight, inputs, Choose(1))
    assert kept.tolist() == [[False, True], [True, False]]
    assert weight.tolist() == [[0.0, -2.0], [3.0, 0.0]]


def test_ria_scores_what_is_cut_everywhere_by_zero():
    score = RIA(power=0.5).score_layer(torch.tensor([[0.0, 1.0], [0.0, 2.0]]), fed(torch.eye(2)))
    torch.testing.assert_close(score, torch.tensor([[0.0, 1 / 3 + 1], [0.0, 2 / 3 + 1]]))


def test_flap_by_hand():
    """The public code's WIFV is Var(X_j) · Σ_i W_ij² of a channel: (1, 0, 4) · (5, 74, 13)."""
    weight = torch.tensor([[1.0, 5.0, -2.0], [-2.0, 7.0, 3.0]])
    inputs = fed(torch.tensor([[1.0, 2.0, 0.0], [3.0, 2.0, -4.0]]))
    assert inputs.mean.tolist() == [2.0, 2.0, -2.0]
    scores = FLAP().score_layer(weight, inputs)
    assert scores.tolist() == [[1.0, 0.0, 4.0], [2.0, 0.0, 6.0]]
    torch.testing.assert_close(scores.square().sum(0), torch.tensor([5.0, 0.0, 52.0]))
    kept = FLAP().prune_layer(weight, inputs, Choose(1))
    assert kept.tolist() == [[True, False, True], [True, False, True]]
    assert weight.tolist() == [[1.0, 0.0, -2.0], [-2.0, 0.0, 3.0]]


# H = [[2, 1], [1, 2]], H⁻¹ = [[2, −1], [−1, 2]] / 3, U = [[√⅔, −1/(3√⅔)], [0, √½]].
TWO = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])


def test_sparsegpt_by_hand():
    weight = torch.tensor([[1.0, 1.0]])
    scores = exact().score_layer(weight, fed(TWO))
    torch.testing.assert_close(scores, torch.tensor([[1 / (2 / 3), 1 / (1 / 2)]]))
    kept = exact().prune_layer(weight, fed(TWO), Choose(1))
    assert kept.tolist() == [[False, True]]
    # The second weight makes up: least squares of XWᵀ with the first at 0 gives 1 + 1/2.
    torch.testing.assert_close(weight, torch.tensor([[0.0, 1.5]]))


def test_a_column_that_is_cut_is_made_up_for_as_well_as_least_squares_can():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 10, generator=generator, dtype=torch.float64) + 1
    weight = torch.randn(4, 10, generator=generator, dtype=torch.float64)

    class First:
        group = None

        def __call__(self, scores, first):
            kept = torch.ones_like(scores, dtype=torch.bool)
            kept[:, 0] = False
            return kept

    updated = weight.clone()
    exact().prune_layer(updated, fed(x), First())
    best = torch.linalg.lstsq(x[:, 1:], x @ weight.T).solution.T
    torch.testing.assert_close(updated[:, 1:], best)


def test_blocks_change_when_masks_are_chosen_and_not_what_is_made_up():
    generator = torch.Generator().manual_seed(1)
    x, weight = torch.randn(99, 12, generator=generator), torch.randn(3, 12, generator=generator)

    class Given:
        group = None

        def __call__(self, scores, first):
            columns = torch.arange(first, first + scores.shape[1])
            return (columns % 3 != 0).expand_as(scores)

    found = []
    for block in (1, 5, 12, 128):
        updated = weight.clone()
        exact(block=block).prune_layer(updated, fed(x), Given())
        found.append(updated)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-5)


def test_groups_are_chosen_on_weights_that_are_already_updated():
    """Otherwise the order in which public code once had it: all masks of a block first."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(50, 8, generator=generator) + 2
    weight, seen = torch.randn(5, 8, generator=generator), []

    class Watching(Choose):
        def __call__(self, scores, first):
            seen.append(scores.clone())
            return super().__call__(scores, first)

    before = exact().score_layer(weight, fed(x))
    exact().prune_layer(weight, fed(x), Watching(2, group=4))
    assert [scores.shape for scores in seen] == [(5, 4), (5, 4)]
    torch.testing.assert_close(seen[0], before[:, :4])
    assert not torch.allclose(seen[1], before[:, 4:], rtol=0.01)


def test_dead_inputs_go_first_and_only_within_the_budget():
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(2))
    x[:, [1, 4]] = 0
    weight = torch.full((2, 6), 1.0)
    kept = SparseGPT(damping=0.01, block=128).prune_layer(weight, fed(x), Choose(1))
    assert kept.sum(1).tolist() == [5, 5]
    assert not kept[:, [1, 4]].all()
    assert (weight[kept] != 0).all()  # the other dead input keeps what it had


@pytest.mark.parametrize("group", [None, 3])
def test_dead_inputs_go_first_however_large_their_weights(group):
    """Nothing comes through them: what they hold is the cheapest there is."""
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(2))
    x[:, [1, 4]] = 0
    weight = torch.ones(2, 6)
    weight[:, [1, 4]] = 1000.0
    assert not exact().score_layer(weight, fed(x))[:, [1, 4]].any()
    choose = Choose(2) if group is None else Choose(1, group)  # two of a row either way
    kept = SparseGPT(damping=0.01, block=128).prune_layer(weight, fed(x), choose)
    assert kept.tolist() == [[True, False, True, True, False, True]] * 2
    assert (weight[kept] == 1.0).all()  # nothing has to be made up for


def test_a_singular_hessian_is_damped_and_that_is_said():
    x = torch.ones(30, 4)  # rank one
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    with pytest.warns(SweWarning, match="singular at criterion.damping=0; "):
        exact().prune_layer(weight, fed(x), Choose(2))
    assert weight.isfinite().all()


def test_inputs_that_are_not_finite_are_refused():
    x = torch.randn(30, 4)
    x[3, 1] = torch.inf
    with pytest.raises(PruningError, match="not finite"):
        exact().prune_layer(torch.ones(2, 4), fed(x), Choose(2))
