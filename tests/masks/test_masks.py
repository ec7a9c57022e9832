import pytest
import torch

from swe_cli.masks.masks import apply, cut_count, jaccard_of_cuts, sparsity

A = {"w": torch.tensor([[True, False], [False, True]])}
B = {"w": torch.tensor([[True, False], [True, True]])}
NONE = {"w": torch.ones(2, 2, dtype=torch.bool)}


def test_apply_zeroes_what_is_cut_and_nothing_else():
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    apply(A, {"w": weight})
    assert weight.tolist() == [[1.0, 0.0], [0.0, 4.0]]


def test_apply_reaches_the_parameter_through_a_view():
    fused = torch.nn.Parameter(torch.ones(4, 2))
    first, _ = fused.chunk(2)
    apply(A, {"w": first})
    assert fused.tolist() == [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]]


def test_counts_and_sparsity():
    assert cut_count(A) == 2
    assert sparsity(A) == 0.5


def test_jaccard_of_cuts():
    assert jaccard_of_cuts(A, B) == pytest.approx(1 / 2)
    assert jaccard_of_cuts(A, A) == 1.0
    assert jaccard_of_cuts(A, NONE) == 0.0
    assert jaccard_of_cuts(NONE, NONE) == 1.0
