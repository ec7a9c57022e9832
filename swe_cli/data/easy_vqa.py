"""easy-VQA (Zhou 2019, MIT): drawn shapes, one an image, and templated questions about them."""

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import torch

from swe_cli.contracts import Example, Split
from swe_cli.data.images import decode
from swe_cli.data.questions import QuestionSet, digest_of
from swe_cli.errors import DataError, UsageError
from swe_cli.seeds import derive

VERSION = "1.0"
COLOURS = {"red", "green", "blue", "black", "gray", "teal", "brown", "yellow"}
SHAPES = {"circle", "rectangle", "triangle"}


def easy_vqa(
    *,
    image_size: int,
    train_images: int | None,
    validation_images: int,
    test_images: int | None,
) -> QuestionSet:
    """4,000 training and 1,000 test images of 64×64; 38,575 and 9,673 questions, 13 answers.

    The test split is the package's own. ``validation_images`` are held out of its training split:
    all questions about them. Raises UsageError for sizes that cannot be.
    """
    package = _package()
    if image_size < 8:
        raise UsageError(f"data.image_size={image_size} is too small.", "Write data.image_size=64")
    paths: list[Path] = []
    asked: dict[str, list[tuple[str, str, int]]] = {}
    for part in ("train", "test"):
        files = getattr(package, f"get_{part}_image_paths")()
        numbers = sorted(files)
        place = {number: len(paths) + index for index, number in enumerate(numbers)}
        paths += [Path(files[number]) for number in numbers]
        questions, answers, about = getattr(package, f"get_{part}_questions")()
        asked[part] = [
            (question, answer, place[image])
            for question, answer, image in zip(questions, answers, about, strict=True)
        ]
    images = {part: sorted({image for _, _, image in rows}) for part, rows in asked.items()}
    chosen = _split(images["train"], images["test"], train_images, validation_images, test_images)
    examples = {
        split: _examples(asked["test" if split == "test" else "train"], set(of))
        for split, of in chosen.items()
    }
    decoded = decode(paths, lambda index: f"easy_vqa image {index}", size=image_size)
    where = {split: [f"easy_vqa, {split}"] * len(of) for split, of in examples.items()}
    return QuestionSet(decoded.pixels, examples, digest_of(examples, decoded.sha256), where)


def _split(
    train: list[int], test: list[int], of_train: int | None, of_validation: int, of_test: int | None
) -> dict[Split, list[int]]:
    left = len(train) - of_validation
    sizes = {
        "train_images": (left if of_train is None else of_train, left),
        "validation_images": (of_validation, len(train) - 1),
        "test_images": (len(test) if of_test is None else of_test, len(test)),
    }
    for name, (size, most) in sizes.items():
        if not 1 <= size <= most:
            raise UsageError(f"data.{name}={size} is not in 1 to {most}.")
    generator = torch.Generator().manual_seed(derive(0, "easy_vqa"))
    order = [train[i] for i in torch.randperm(len(train), generator=generator).tolist()]
    return {
        "train": order[of_validation:][: sizes["train_images"][0]],
        "validation": order[:of_validation],
        "test": test[: sizes["test_images"][0]],
    }


def _examples(rows: Sequence[tuple[str, str, int]], images: set[int]) -> tuple[Example, ...]:
    """Of some images, sorted by image, in the package's order."""
    own = sorted((row for row in rows if row[2] in images), key=lambda row: row[2])
    return tuple(Example(image, question, answer, _kind(answer)) for question, answer, image in own)


def _kind(answer: str) -> str:
    if answer in COLOURS:
        return "color"
    return "shape" if answer in SHAPES else "yes or no"


def _package() -> ModuleType:
    try:
        found = version("easy-vqa")
    except PackageNotFoundError:
        raise DataError(
            "data=easy_vqa needs the easy-vqa package.", "Type: pip install 'swe-cli[multimodal]'"
        ) from None
    if found != VERSION:
        raise DataError(
            f"easy-vqa {found} is installed; results are compared on {VERSION}.",
            f"Type: pip install easy-vqa=={VERSION}",
        )
    return import_module("easy_vqa")
