"""Sets of questions about images, before any tokenizer; and the three there are."""

import csv
import hashlib
import json
import math
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from swe_cli.contracts import SPLITS, Count, Example, Split
from swe_cli.data.images import ImageSize, Pixels, decode
from swe_cli.data.text import Share, StringSource, Text, at_most, check_shares, consecutive, reading
from swe_cli.errors import DataError, optional
from swe_cli.files import digest
from swe_cli.seeds import derive


@dataclass(frozen=True)
class QuestionSet:
    """Images and what is asked about them, before any tokenizer.

    ``pixels`` uint8 (M, K, height, width), possibly mapped from disk. ``examples`` of a split name
    images by their place in ``pixels``; no image belongs to two splits. ``sha256`` is of all of
    it. ``where`` says in words where an example comes from, for errors, if that is not simply its
    number in the split. ``notes`` are to be told to the user once.
    """

    pixels: Pixels
    examples: Mapping[Split, Sequence[Example]]
    sha256: str
    where: Mapping[Split, Sequence[str]] | None = None
    notes: tuple[str, ...] = ()

    def place(self, split: Split, row: int) -> str:
        """In words, where an example comes from."""
        return self.where[split][row] if self.where else f"Question {row + 1:,} of {split}"

    def text(self) -> Text:
        """All that is written, one example a line: what tokenizers learn from."""
        texts = ["".join(f"{e.question}\n{e.answer}\n" for e in self.examples[s]) for s in SPLITS]
        return Text(StringSource("".join(texts)), consecutive(map(len, texts)))


def digest_of(examples: Mapping[Split, Sequence[Example]], pixels_sha256: str) -> str:
    """Hash of questions, answers, splits and pixels."""
    return digest([{split: list(of) for split, of in examples.items()}, pixels_sha256])


# easy-VQA

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
    """easy-VQA (Zhou 2019, MIT): drawn shapes, one an image, and templated questions about them.

    4,000 training and 1,000 test images of 64×64; 38,575 and 9,673 questions, 13 answers. The test
    split is the package's own. ``validation_images`` are held out of its training split: all
    questions about them. Raises UsageError for more images than there are.
    """
    try:
        installed = version("easy-vqa")
    except PackageNotFoundError:
        installed = "none"
    if installed != "1.0":
        why = f"data=easy_vqa needs the package easy-vqa 1.0; {installed} is installed."
        raise DataError(why, "Type: pip install 'swe-cli[multimodal]'")
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
        every += [Example(first + at, q, a, KINDS.get(a, "yes or no")) for q, a, at in rows]
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


# Sums of digits

QUESTION = "what is the sum?"
SIDE, MOST = 8, 3  # pixels of a source digit; digits in one image


def digit_sums(
    *,
    scale: Annotated[int, Field(ge=1, le=32)],
    train_examples: Count,
    validation_examples: Count,
    test_examples: Count,
) -> QuestionSet:
    """Sums of handwritten digits: one to three real digits side by side, the answer a number.

    The 1,797 digits of 8×8 pixels that come with scikit-learn (Alpaydin & Kaynak 1998, UCI), in a
    row, left-aligned on black, each pixel ``scale`` wide. Train, validation and test are drawn from
    disjoint source digits (70, 10 and 20 %).
    """
    loaded = optional("sklearn.datasets", "data=digit_sums", "multimodal").load_digits()
    digits = (loaded.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8)
    order = np.random.default_rng(derive(0, "digit_sums")).permutation(len(digits))
    parts = np.split(order, [round(0.7 * len(order)), round(0.8 * len(order))])
    sizes = (train_examples, validation_examples, test_examples)
    drawn: list[np.ndarray] = []  # places in digits (n, 3)
    shown: list[np.ndarray] = []  # how many of them are seen (n,)
    for number, (sources, size) in enumerate(zip(parts, sizes, strict=True), 1):
        generator = np.random.default_rng(derive(0, "digit_sums", number))
        shown.append(generator.integers(1, MOST + 1, size))
        drawn.append(sources[generator.integers(len(sources), size=(size, MOST))])
    picks, counts = np.concatenate(drawn), np.concatenate(shown)
    visible = np.arange(MOST) < counts[:, None]  # (n, 3)
    tiles = digits[picks] * visible[:, :, None, None]  # (n, 3, 8, 8)
    pixels = tiles.transpose(0, 2, 1, 3).reshape(-1, 1, SIDE, MOST * SIDE)
    pixels = pixels.repeat(scale, axis=2).repeat(scale, axis=3)
    sums = (loaded.target[picks] * visible).sum(axis=1)
    every = [
        Example(place, QUESTION, str(total), "1 digit" if count == 1 else f"{count} digits")
        for place, (total, count) in enumerate(zip(sums, counts, strict=True))
    ]
    examples = {split: every[start:end] for split, (start, end) in consecutive(sizes).items()}
    sha256 = digest_of(examples, hashlib.sha256(pixels.tobytes()).hexdigest())
    return QuestionSet(pixels, examples, sha256)


# A folder of the user's own images, and a file beside them of what is asked about each

NEEDED = ("image", "question", "answer")
COLUMNS = (*NEEDED, "split", "type")
SAMPLE_ROWS = {  # as it is written in either file
    "questions.jsonl": '{"image": "0.png", "question": "one, or two?", "answer": "two"}',
    "questions.csv": '0.png,"one, or two?",two',
}
Row = dict[str, str]  # what COLUMNS hold, and "where" that is: the file and the row


def image_folder(
    *, path: str, image_size: ImageSize, validation_fraction: Share, test_fraction: Share
) -> QuestionSet:
    """Images, and ``questions.jsonl`` or ``questions.csv``: image, question, answer, split, type.

    Without ``split``, a hash of an image's name decides where it belongs: images that are added
    later move none. Raises UsageError for fractions that cannot be, DataError naming file and row
    for all that cannot be used.
    """
    check_shares(validation_fraction, test_fraction)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        hint = "Name the folder that holds the images: data.path=FOLDER"
        raise DataError(f"{path} is not a folder.", hint)
    folder = folder.resolve()
    files = [folder / name for name in SAMPLE_ROWS if (folder / name).exists()]
    if len(files) != 1:
        held = "both {} and {}" if files else "neither {} nor {}"
        why = f"{folder} holds {held.format(*SAMPLE_ROWS)}."
        raise DataError(why, f"Let it hold one, with the columns {', '.join(NEEDED)}.")
    of_image: dict[str, list[Row]] = {}
    for row in _rows(files[0]):  # one name for every way of writing a path, wherever the folder is
        name = Path(os.path.relpath(folder / row["image"], folder)).as_posix()
        of_image.setdefault(name, []).append(row)
    if not of_image:
        raise DataError(f"{files[0]} holds no question.", "Write at least one row a split.")
    named = any(row["split"] for rows in of_image.values() for row in rows)
    examples: dict[Split, list[Example]] = {split: [] for split in SPLITS}
    where: dict[Split, list[str]] = {split: [] for split in SPLITS}
    for place, (name, rows) in enumerate(of_image.items()):
        drawn = derive(0, f"image_folder/{name}") / 2**63
        split: Split = "test" if drawn < test_fraction else "validation"
        if named:
            split = _named_split(name, rows)
        elif drawn >= test_fraction + validation_fraction:
            split = "train"
        for row in rows:
            kind = row["type"] or "question"
            examples[split].append(Example(place, row["question"], row["answer"], kind))
            where[split].append(row["where"])
    for split in SPLITS:
        if not examples[split]:
            raise DataError(
                f"None of the {len(of_image):,} images of {files[0].name} is of the split {split}.",
                "Name a split in every row, add images, or change data.validation_fraction or "
                "data.test_fraction (of rows that name none).",
            )
    images = {rows[0]["where"]: folder / name for name, rows in of_image.items()}
    decoded = decode(images, size=image_size)
    sha256 = digest_of(examples, decoded.sha256)
    return QuestionSet(decoded.pixels, examples, sha256, where, decoded.notes)


def _named_split(name: str, rows: Sequence[Row]) -> Split:
    """What all rows about an image name. Raises DataError for one that names none, or another."""
    first = rows[0]
    for row in rows:
        if row["split"] not in SPLITS:
            hint = "Write train, validation or test in every row, or leave the column out."
            raise DataError(f"{row['where']}: there is no split {row['split']!r}.", hint)
        if row["split"] != first["split"]:
            both = f"of the split {row['split']} here and of {first['split']} in {first['where']}"
            why = f"{row['where']}: the image {name} is {both}."
            raise DataError(why, "All questions about an image belong to one split.")
    return SPLITS[SPLITS.index(first["split"])]


def _rows(file: Path) -> Iterator[Row]:
    """Empty rows are counted and passed over. Raises DataError naming a row that is none."""
    header: list[str] = []
    with reading(file) as opened:
        lines = (line.decode("utf-8-sig") for line in opened)
        is_csv = file.suffix == ".csv"
        records: Iterator[Any] = csv.reader(lines, strict=True) if is_csv else map(_parsed, lines)
        for number in count(1):
            where = f"{file.name} row {number}"
            try:
                record = next(records, None)
                if record is None:
                    return
                if record and not is_csv:
                    yield _row(where, _columns(record), [*record.values()])
                elif record and header:
                    yield _row(where, header, record)
                elif record:
                    header = _columns(record)
            except UnicodeDecodeError as error:
                hint = "Convert it first: iconv -f ENCODING -t UTF-8"
                raise DataError(f"{where} is not UTF-8: {error.reason}.", hint) from None
            except (csv.Error, ValueError, RecursionError) as error:
                hint = f"A row is written like this: {SAMPLE_ROWS[file.name]}"
                raise DataError(f"{where}: {getattr(error, 'msg', error)}.", hint) from None


def _parsed(line: str) -> dict[str, Any]:
    record = json.loads(line) if line.strip() else {}
    if not isinstance(record, dict):
        raise ValueError("it is no JSON object")
    return record


def _columns(names: Iterable[str]) -> list[str]:
    """In small letters: all that are needed, and none twice."""
    columns = [name.strip().lower() for name in names]
    for name in NEEDED:
        if name not in columns:
            raise ValueError(f"there is no column {name} among {', '.join(columns)}")
    for name in columns:
        if columns.count(name) > 1:
            raise ValueError(f"there are two columns {name}")
    return columns


def _row(where: str, columns: Sequence[str], values: Sequence[Any]) -> Row:
    if len(values) != len(columns):
        raise ValueError(f"it has {len(values)} columns, but {len(columns)} have a name")
    cells = dict(zip(columns, values, strict=True))
    return {"where": where, **{name: _text(cells.get(name), name) for name in COLUMNS}}


def _text(cell: Any, column: str) -> str:
    """A cell as people write it: a number without needless decimals, one space between words."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    is_number = type(cell) is int or (type(cell) is float and math.isfinite(cell))
    if not isinstance(cell, str | None) and not is_number:
        raise ValueError(f"the {column} {json.dumps(cell)} is neither text nor a number")
    text = "" if cell is None else str(cell)
    text.encode()  # a ValueError for half a character
    if column in NEEDED and not text.strip():
        raise ValueError(f"the {column} is empty")
    return text.strip() if column == "image" else " ".join(text.split())
