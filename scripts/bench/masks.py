"""Bench 3: masks for nine ratios over 10.5M weights, ours against torch.nn.utils.prune.

    python scripts/bench/masks.py

Wanted: nine exact masks at least 25 times faster than nine calls of global_unstructured.
"""

import statistics

import torch
from common import seconds
from torch.nn.utils import prune

from swe_cli.ranking import Ranking, exact_count

SHAPES = [(1152, 384), (384, 384), (1536, 384), (384, 1536)] * 6  # gpt_small's matrices: 10.6M
RATIOS = [tenth / 10 for tenth in range(1, 10)]
ROUNDS = 5


def ours(weights: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    scores = {name: weight.abs() for name, weight in weights.items()}
    ranked = Ranking(scores, weights)
    return [ranked.masks(ranked.lowest(exact_count(r, ranked.total))) for r in RATIOS]


def torchs(weights: dict[str, torch.Tensor], ratio: float) -> int:
    layers = [torch.nn.Linear(w.shape[1], w.shape[0], bias=False) for w in weights.values()]
    for layer, weight in zip(layers, weights.values(), strict=True):
        layer.weight.data = weight
    prune.global_unstructured(
        [(layer, "weight") for layer in layers], prune.L1Unstructured, amount=ratio
    )
    return sum(int((layer.weight_mask == 0).sum()) for layer in layers)


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {f"w{i}": torch.randn(s, generator=generator) for i, s in enumerate(SHAPES)}
    total = sum(weight.numel() for weight in weights.values())
    for ratio, masks in zip(RATIOS, ours(weights), strict=True):
        cut = sum(int((~mask).sum()) for mask in masks.values())
        assert cut == exact_count(ratio, total), (ratio, cut)
    mine, theirs = [], []
    for _ in range(ROUNDS):
        mine.append(seconds(lambda: ours(weights)))
        theirs.append(seconds(lambda: [torchs(weights, ratio) for ratio in RATIOS]))
    ratio = statistics.median(b / a for a, b in zip(mine, theirs, strict=True))
    print(f"{total:,} weights, nine ratios, exact counts")
    print(f"ours {statistics.median(mine):.3f} s, torch {statistics.median(theirs):.2f} s")
    print(f"3. torch / ours = {ratio:.1f}")


if __name__ == "__main__":
    main()
