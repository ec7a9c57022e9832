"""Greedy decoding with the key–value cache against reading everything again. Wanted: ≥ 3×.

32 new tokens for 8 questions, ``model=llava_small`` on images of 64×64 pixels; the same tokens
must come out.
"""

import sys

import torch
from common import alternate

from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import DataShape
from swe_cli.models.decoding import greedy
from swe_cli.seeds import global_randomness

ROWS, QUESTION, NEW = 8, 12, 32


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "llava_small"
    shape = DataShape(64, image=(3, 64, 64))
    with global_randomness(0, "init"):
        model = component("model", name, ConfigRoot()).build(shape).eval()
        prompts = {
            "tokens": torch.randint(64, (ROWS, QUESTION)),
            "lengths": torch.randint(QUESTION // 2, QUESTION + 1, (ROWS,)),
            "images": torch.randint(256, (ROWS, *shape.image), dtype=torch.uint8),
            "image": torch.arange(ROWS),
        }
    found = {}

    def decode(cached: bool) -> None:
        found[cached] = greedy(model, prompts, length=NEW, cached=cached)

    slow, fast, ratio = alternate(lambda: decode(False), lambda: decode(True), rounds=7)
    if found[True] != found[False]:
        raise SystemExit("The cache changed a token.")
    print(f"{name}, {ROWS} questions, {NEW} new tokens, the same both ways")
    print(f"without cache {slow:.2f} s, with {fast:.2f} s: {ratio:.1f} x")


if __name__ == "__main__":
    main()
