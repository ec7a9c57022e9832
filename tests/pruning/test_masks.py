import pytest
import torch

from swe_cli.pruning.masks import apply_masks, cut_counts, fuse, jaccard_of_cuts, sparsity

A = {"w": torch.tensor([[True, False], [False, True]])}
B = {"w": torch.tensor([[True, False], [True, True]])}
NONE = {"w": torch.ones(2, 2, dtype=torch.bool)}


def test_apply_zeroes_what_is_cut_and_nothing_else():
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    apply_masks(A, {"w": weight})
    assert weight.tolist() == [[1.0, 0.0], [0.0, 4.0]]


def test_apply_reaches_the_parameter_through_a_view():
    fused = torch.nn.Parameter(torch.ones(4, 2))
    first, _ = fused.chunk(2)
    apply_masks(A, {"w": first})
    assert fused.tolist() == [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]]


def test_counts_and_sparsity():
    assert cut_counts(A) == {"w": 2}
    assert sparsity(A) == 0.5


def test_jaccard_of_cuts():
    assert jaccard_of_cuts(A, B) == pytest.approx(1 / 2)
    assert jaccard_of_cuts(A, A) == 1.0
    assert jaccard_of_cuts(A, NONE) == 0.0
    assert jaccard_of_cuts(NONE, NONE) == 1.0


def test_slices_with_more_zeros_than_the_threshold_go_whole():
    weight = torch.tensor(
        [
            [0.0, 0.0, 0.0, 1.0],  # three quarters: not more than 0.75
            [0.0, 0.0, 0.0, 0.0],
            [1.0, 2.0, 0.0, 0.0],
            [1.0, 1.0, 1.0, 1.0],
        ]
    )
    masks = {"w": weight != 0}
    assert torch.equal(fuse({"w": weight}, masks, 0.75)["w"], masks["w"])
    by_half = fuse({"w": weight}, masks, 0.5)["w"]
    assert by_half.any(1).tolist() == [False, False, True, True]  # 0.5 is not more than 0.5
    assert torch.equal(masks["w"], weight != 0)  # what was given is as it was
    assert not fuse({"w": weight}, masks, 0.25)["w"][:3].any()


def test_natural_zeros_count_and_of_a_vector_only_zeros_go():
    weights = {"w": torch.tensor([[0.0, 0.0, 3.0], [1.0, 2.0, 3.0]]), "b": torch.tensor([0.0, 1.0])}
    uncut = {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}
    fused = fuse(weights, uncut, 0.6)
    assert fused["w"].tolist() == [[False] * 3, [True] * 3]
    assert fused["b"].tolist() == [False, True]
