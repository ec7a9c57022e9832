"""Greedy decoding with the key–value cache against reading everything again. Wanted: ≥ 3×.

32 new tokens for 8 questions, ``model=llava_small`` on images of 64×64 pixels; the same tokens
must come out.
"""

import sys

import torch
from common import alternate
from torch.nn import functional as F

from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import DataShape
from swe_cli.models.gpt import greedy
from swe_cli.models.llava import LLaVA
from swe_cli.records import Batch
from swe_cli.seeds import global_randomness

ROWS, QUESTION, NEW = 8, 12, 32


@torch.inference_mode()
def reread(model: LLaVA, prompts: Batch, new: int) -> list[list[int]]:
    """Without a cache: the whole text is read again for every token."""
    language, decoded = model.language, []
    x = F.pad(model.inputs(prompts), (0, 0, 0, new))
    places, rows = model.image_tokens + prompts["lengths"], torch.arange(ROWS)
    for _ in range(new):
        token = language.logits(language.hidden(x)[rows, places - 1]).argmax(-1)
        decoded.append(token)
        x[rows, places] = language.embed(token, places.clamp(max=language.context - 1))
        places = places + 1
    return torch.stack(decoded, dim=1).tolist()


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
    new = min(NEW, model.context - QUESTION + 1)
    if greedy(model, prompts, length=new) != reread(model, prompts, new):
        raise SystemExit("The cache changed a token.")
    slow, fast, ratio = alternate(
        lambda: reread(model, prompts, new), lambda: greedy(model, prompts, length=new), rounds=7
    )
    print(f"{name}, {ROWS} questions, {new} new tokens, the same both ways")
    print(f"without cache {slow:.2f} s, with {fast:.2f} s: {ratio:.1f} x")


if __name__ == "__main__":
    main()
