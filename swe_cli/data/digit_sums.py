"""Sums of handwritten digits: one to three real digits side by side, the answer a number."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from swe_cli.contracts import Example, Split
from swe_cli.data.images import Pixels
from swe_cli.data.questions import QuestionSet, digest_of
from swe_cli.data.text import SPLITS, check_size
from swe_cli.errors import DataError
from swe_cli.seeds import derive

QUESTION = "what is the sum?"
SIDE, MOST = 8, 3  # pixels of a source digit; digits in one image
KINDS = ("1 digit", "2 digits", "3 digits")
SOURCE_SHARES = {"train": (0.0, 0.7), "validation": (0.7, 0.8), "test": (0.8, 1.0)}


def digit_sums(
    *, scale: int, train_examples: int, validation_examples: int, test_examples: int
) -> QuestionSet:
    """The 1,797 digits of 8×8 pixels that come with scikit-learn (Alpaydin & Kaynak 1998, UCI).

    Every image is one to three of them in a row, left-aligned on black, each pixel ``scale`` wide.
    Train, validation and test are drawn from disjoint source digits (70, 10 and 20 %).
    """
    sizes = dict(zip(SPLITS, (train_examples, validation_examples, test_examples), strict=True))
    for split, size in sizes.items():
        check_size(f"{split}_examples", size)
    check_size("scale", scale, 32)
    digits, values = _source()
    order = np.random.default_rng(derive(0, "digit_sums")).permutation(len(digits))
    pixels: list[Pixels] = []
    examples: dict[Split, list[Example]] = {}
    for split, size in sizes.items():
        low, high = (round(share * len(order)) for share in SOURCE_SHARES[split])
        generator = np.random.default_rng(derive(0, "digit_sums", 1 + SPLITS.index(split)))
        counts = generator.integers(1, MOST + 1, size)
        picks = order[low:high][generator.integers(high - low, size=(size, MOST))]
        visible = np.arange(MOST) < counts[:, None]  # (n, 3)
        tiles = digits[picks] * visible[:, :, None, None].astype(np.uint8)  # (n, 3, 8, 8)
        images = tiles.transpose(0, 2, 1, 3).reshape(size, 1, SIDE, MOST * SIDE)
        sums = (values[picks] * visible).sum(axis=1)
        rows = zip(sums.tolist(), counts.tolist(), strict=True)
        examples[split] = [
            Example(place, QUESTION, str(total), KINDS[count - 1])
            for place, (total, count) in enumerate(rows, sum(map(len, pixels)))
        ]
        pixels.append(images.repeat(scale, axis=2).repeat(scale, axis=3))
    stacked = np.concatenate(pixels)
    sha256 = digest_of(examples, hashlib.sha256(stacked.tobytes()).hexdigest())
    where = {
        split: [f"digit_sums, {split} example {i}" for i in range(size)]
        for split, size in sizes.items()
    }
    return QuestionSet(stacked, examples, sha256, where)


def _source() -> tuple[Pixels, NDArray[np.int64]]:
    """Digits uint8 (1797, 8, 8) in 0 to 255, and their values."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError(
            "data=digit_sums needs scikit-learn.", "Type: pip install 'swe-cli[multimodal]'"
        ) from None
    loaded = load_digits()
    return (loaded.images * (255 / 16)).astype(np.uint8), loaded.target.astype(np.int64)
