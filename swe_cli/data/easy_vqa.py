"""easy-VQA (Zhou 2019, MIT): drawn shapes, one an image, and templated questions about them."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import torch

from swe_cli.contracts import Example, Split
from swe_cli.data.images import check_image_size, decode
from swe_cli.data.questions import QuestionSet, digest_of
from swe_cli.data.text import check_size
from swe_cli.errors import DataError
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
    check_image_size(image_size)
    paths: list[Path] = []
    images: dict[str, list[int]] = {}
    examples_of: dict[int, list[Example]] = {}
    for part in ("train", "test"):
        files = getattr(package, f"get_{part}_image_paths")()
        place = {number: len(paths) + index for index, number in enumerate(sorted(files))}
        paths += [Path(files[number]) for number in place]
        rows = zip(*getattr(package, f"get_{part}_questions")(), strict=True)
        for question, answer, number in rows:
            example = Example(place[number], question, answer, _kind(answer))
            examples_of.setdefault(example.image, []).append(example)
        images[part] = sorted(examples_of.keys() & place.values())
    train, test = images["train"], images["test"]
    left = len(train) - validation_images
    train_images = left if train_images is None else train_images
    test_images = len(test) if test_images is None else test_images
    check_size("train_images", train_images, left)
    check_size("validation_images", validation_images, len(train) - 1)
    check_size("test_images", test_images, len(test))
    generator = torch.Generator().manual_seed(derive(0, "easy_vqa"))
    order = [train[i] for i in torch.randperm(len(train), generator=generator).tolist()]
    chosen: dict[Split, list[int]] = {
        "train": order[validation_images:][:train_images],
        "validation": order[:validation_images],
        "test": test[:test_images],
    }
    examples = {
        split: [example for image in sorted(of) for example in examples_of[image]]
        for split, of in chosen.items()
    }
    decoded = decode(paths, lambda index: f"easy_vqa image {index}", size=image_size)
    where = {split: [f"easy_vqa, {split}"] * len(of) for split, of in examples.items()}
    return QuestionSet(decoded.pixels, examples, digest_of(examples, decoded.sha256), where)


def _kind(answer: str) -> str:
    if answer in COLOURS:
        return "color"
    return "shape" if answer in SHAPES else "yes or no"


def _package() -> ModuleType:
    try:
        installed = version("easy-vqa")
    except PackageNotFoundError:
        raise DataError(
            "data=easy_vqa needs the easy-vqa package.", "Type: pip install 'swe-cli[multimodal]'"
        ) from None
    if installed != VERSION:
        raise DataError(
            f"easy-vqa {installed} is installed; results are compared on {VERSION}.",
            f"Type: pip install easy-vqa=={VERSION}",
        )
    return import_module("easy_vqa")
