"""Sums of handwritten digits: one to three real digits side by side, the answer a number."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from swe_cli.contracts import Example, Split
from swe_cli.data.images import Pixels
from swe_cli.data.questions import QuestionSet, digest_of
from swe_cli.errors import DataError, UsageError
from swe_cli.seeds import derive

QUESTION = "what is the sum?"
SIDE, MOST = 8, 3  # pixels of a source digit; digits in one image
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SOURCE_SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}


def digit_sums(
    *, scale: int, train_examples: int, validation_examples: int, test_examples: int
) -> QuestionSet:
    """The 1,797 digits of 8×8 pixels that come with scikit-learn (Alpaydin & Kaynak 1998, UCI).

    Every image is one to three of them in a row, left-aligned on black, each pixel ``scale`` wide.
    Train, validation and test are drawn from disjoint source digits (70, 10 and 20 %).
    """
    sizes = dict(zip(SPLITS, (train_examples, validation_examples, test_examples), strict=True))
    for split, size in sizes.items():
        if size < 1:
            raise UsageError(f"data.{split}_examples={size} must be at least 1.")
    if not 1 <= scale <= 32:
        raise UsageError(f"data.scale={scale} is not in 1 to 32.")
    digits, values = _source()
    order = np.random.default_rng(derive(0, "digit_sums")).permutation(len(digits))
    bounds = np.cumsum([0.0, *SOURCE_SHARES.values()])
    pixels: list[Pixels] = []
    examples: dict[Split, tuple[Example, ...]] = {}
    where: dict[Split, list[str]] = {}
    for split, low, high in zip(SPLITS, bounds[:-1], bounds[1:], strict=True):
        pool = order[round(low * len(order)) : round(high * len(order))]
        first = sum(map(len, pixels))
        drawn, examples[split] = _draw(split, pool, digits, values, sizes[split], first)
        pixels.append(drawn.repeat(scale, axis=2).repeat(scale, axis=3))
        where[split] = [f"digit_sums, {split} example {i}" for i in range(sizes[split])]
    images = np.concatenate(pixels)
    sha256 = digest_of(examples, hashlib.sha256(images.tobytes()).hexdigest())
    return QuestionSet(images, examples, sha256, where)


def _draw(
    split: Split,
    pool: NDArray[np.int64],
    digits: Pixels,
    values: NDArray[np.int64],
    size: int,
    first: int,
) -> tuple[Pixels, tuple[Example, ...]]:
    """``size`` images (n, 1, 8, 24) of digits drawn from ``pool``, and their examples."""
    generator = np.random.default_rng(derive(0, "digit_sums", 1 + SPLITS.index(split)))
    counts = generator.integers(1, MOST + 1, size)
    picks = pool[generator.integers(len(pool), size=(size, MOST))]
    shown = np.arange(MOST) < counts[:, None]  # (n, 3)
    tiles = digits[picks] * shown[:, :, None, None].astype(np.uint8)  # (n, 3, 8, 8)
    images = tiles.transpose(0, 2, 1, 3).reshape(size, 1, SIDE, MOST * SIDE)
    sums = (values[picks] * shown).sum(axis=1)
    kinds = ("1 digit", "2 digits", "3 digits")
    return images, tuple(
        Example(first + i, QUESTION, str(total), kinds[count - 1])
        for i, (total, count) in enumerate(zip(sums.tolist(), counts.tolist(), strict=True))
    )


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
