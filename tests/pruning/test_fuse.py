import torch

from swe_cli.pruning.fuse import fuse


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
