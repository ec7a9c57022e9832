"""Sums of handwritten digits: one to three real digits side by side, the answer a number."""

import hashlib
from typing import Annotated

import numpy as np
from pydantic import Field

from swe_cli.contracts import Count, Example, Split
from swe_cli.data.questions import QuestionSet, digest_of
from swe_cli.data.text import SPLITS
from swe_cli.errors import DataError
from swe_cli.seeds import derive

QUESTION = "what is the sum?"
SIDE, MOST = 8, 3  # pixels of a source digit; digits in one image
KINDS = ("1 digit", "2 digits", "3 digits")
SOURCE_BOUNDS = (0.0, 0.7, 0.8, 1.0)  # which source digits belong to train, validation, test
Scale = Annotated[int, Field(ge=1, le=32)]


def digit_sums(
    *, scale: Scale, train_examples: Count, validation_examples: Count, test_examples: Count
) -> QuestionSet:
    """The 1,797 digits of 8×8 pixels that come with scikit-learn (Alpaydin & Kaynak 1998, UCI).

    Every image is one to three of them in a row, left-aligned on black, each pixel ``scale`` wide.
    Train, validation and test are drawn from disjoint source digits (70, 10 and 20 %).
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError(
            "data=digit_sums needs scikit-learn.", "Type: pip install 'swe-cli[multimodal]'"
        ) from None
    loaded = load_digits()
    digits = (loaded.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8)
    order = np.random.default_rng(derive(0, "digit_sums")).permutation(len(digits))
    bounds = [round(share * len(order)) for share in SOURCE_BOUNDS]
    pixels: list[np.ndarray] = []
    examples: dict[Split, list[Example]] = {}
    sizes = (train_examples, validation_examples, test_examples)
    for number, (split, size) in enumerate(zip(SPLITS, sizes, strict=True)):
        sources = order[bounds[number] : bounds[number + 1]]
        generator = np.random.default_rng(derive(0, "digit_sums", 1 + number))
        counts = generator.integers(1, MOST + 1, size)
        picks = sources[generator.integers(len(sources), size=(size, MOST))]
        visible = np.arange(MOST) < counts[:, None]  # (n, 3)
        tiles = digits[picks] * visible[:, :, None, None].astype(np.uint8)  # (n, 3, 8, 8)
        images = tiles.transpose(0, 2, 1, 3).reshape(size, 1, SIDE, MOST * SIDE)
        sums = (loaded.target[picks] * visible).sum(axis=1)
        rows = zip(sums.tolist(), counts.tolist(), strict=True)
        examples[split] = [
            Example(place, QUESTION, str(total), KINDS[count - 1])
            for place, (total, count) in enumerate(rows, sum(map(len, pixels)))
        ]
        pixels.append(images.repeat(scale, axis=2).repeat(scale, axis=3))
    stacked = np.concatenate(pixels)
    sha256 = digest_of(examples, hashlib.sha256(stacked.tobytes()).hexdigest())
    return QuestionSet(stacked, examples, sha256)
