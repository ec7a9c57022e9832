"""easy-VQA (Zhou 2019, MIT): drawn shapes, one an image, and templated questions about them."""

from collections.abc import Container
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from swe_cli.contracts import Count, Example, Split
from swe_cli.data.images import ImageSize, decode
from swe_cli.data.questions import QuestionSet, digest_of
from swe_cli.data.text import at_most
from swe_cli.errors import DataError
from swe_cli.seeds import derive

VERSION = "1.0"
TRAIN, TEST = 4_000, 1_000  # images
KINDS = {
    **dict.fromkeys(("red", "green", "blue", "black", "gray", "teal", "brown", "yellow"), "color"),
    **dict.fromkeys(("circle", "rectangle", "triangle"), "shape"),
}


def easy_vqa(
    *,
    image_size: ImageSize,
    train_images: Count | None,
    validation_images: Count,
    test_images: Count | None,
) -> QuestionSet:
    """4,000 training and 1,000 test images of 64×64; 38,575 and 9,673 questions, 13 answers.

    The test split is the package's own. ``validation_images`` are held out of its training split:
    all questions about them. Raises UsageError for more images than there are.
    """
    try:
        installed = version("easy-vqa")
    except PackageNotFoundError:
        installed = "none"
    if installed != VERSION:
        raise DataError(
            f"data=easy_vqa needs the package easy-vqa {VERSION}; {installed} is installed.",
            "Type: pip install 'swe-cli[multimodal]'",
        )
    package = import_module("easy_vqa")
    left = TRAIN - at_most("validation_images", validation_images, TRAIN - 1)
    train_images = at_most("train_images", train_images, left)
    test_images = at_most("test_images", test_images, TEST)
    paths: list[Path] = []
    every: list[Example] = []
    for part, first in (("train", 0), ("test", TRAIN)):
        images = getattr(package, f"get_{part}_image_paths")()
        paths += [Path(images[number]) for number in sorted(images)]
        rows = zip(*getattr(package, f"get_{part}_questions")(), strict=True)
        every += [
            Example(first + number, question, answer, KINDS.get(answer, "yes or no"))
            for question, answer, number in rows
        ]
    every.sort(key=lambda example: example.image)
    generator = torch.Generator().manual_seed(derive(0, "easy_vqa"))
    order = torch.randperm(TRAIN, generator=generator).tolist()
    chosen: dict[Split, Container[int]] = {
        "train": set(order[validation_images:][:train_images]),
        "validation": set(order[:validation_images]),
        "test": range(TRAIN, TRAIN + test_images),
    }
    examples = {split: [e for e in every if e.image in of] for split, of in chosen.items()}
    files = {f"easy_vqa image {place}": path for place, path in enumerate(paths)}
    decoded = decode(files, size=image_size)
    return QuestionSet(decoded.pixels, examples, digest_of(examples, decoded.sha256))
