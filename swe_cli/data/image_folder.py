"""A folder of the user's own images, and a file beside them of what is asked about each."""

import csv
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from swe_cli.contracts import Example, Split
from swe_cli.data.images import decode
from swe_cli.data.questions import QuestionSet, digest_of
from swe_cli.data.sources import readable
from swe_cli.errors import DataError, UsageError
from swe_cli.seeds import derive

FILES = ("questions.jsonl", "questions.csv")
NEEDED = ("image", "question", "answer")
SPLITS: tuple[Split, ...] = get_args(Split)


class _Row(NamedTuple):
    """``where``: the file and the row; ``split`` and ``kind`` are empty where none is named."""

    where: str
    image: str
    question: str
    answer: str
    split: str
    kind: str


def image_folder(
    *, path: str, image_size: int, validation_fraction: float, test_fraction: float
) -> QuestionSet:
    """Images, and ``questions.jsonl`` or ``questions.csv``: image, question, answer, split, type.

    Without ``split``, a hash of an image's name decides where it belongs: images that are added
    later move none. Raises UsageError for fractions that cannot be, DataError naming file and row
    for all that cannot be used.
    """
    _check(image_size, validation_fraction, test_fraction)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"{path} is not a folder.", "Name the folder that holds the images: data.path=FOLDER"
        )
    folder = folder.resolve()
    file = _questions_file(folder)
    rows = list(_rows(file))
    if not rows:
        raise DataError(f"{file} holds no question.", "Write at least one row a split.")
    places: dict[str, int] = {}  # of images, by first appearance
    about = [places.setdefault(_name(folder, row), len(places)) for row in rows]
    firsts: dict[int, _Row] = {}
    for image, row in zip(about, rows, strict=True):
        firsts.setdefault(image, row)
    named = _splits_are_named(rows)
    if named:
        splits = _splits_of_rows(rows, about, firsts)
    else:
        splits = [_split_of(name, validation_fraction, test_fraction) for name in places]
    examples: dict[Split, list[Example]] = {split: [] for split in SPLITS}
    where: dict[Split, list[str]] = {split: [] for split in SPLITS}
    for index in sorted(range(len(rows)), key=about.__getitem__):
        row, image = rows[index], about[index]
        kind = row.kind or "question"
        examples[splits[image]].append(Example(image, row.question, row.answer, kind))
        where[splits[image]].append(row.where)
    _check_none_is_empty(examples, file, len(places), named)
    decoded = decode(
        [folder / name for name in places], lambda image: firsts[image].where, size=image_size
    )
    digest = digest_of(examples, decoded.sha256)
    return QuestionSet(decoded.pixels, examples, digest, where, decoded.notes())


def _check(image_size: int, validation_fraction: float, test_fraction: float) -> None:
    if image_size < 8:
        raise UsageError(f"data.image_size={image_size} is too small.", "Write data.image_size=64")
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    for name, fraction in fractions.items():
        if not 0.0 < fraction < 1.0:
            raise UsageError(f"data.{name}={fraction:g} must lie between 0 and 1.")
    if validation_fraction + test_fraction >= 1.0:
        raise UsageError(
            f"data.validation_fraction={validation_fraction:g} and "
            f"data.test_fraction={test_fraction:g} leave nothing to train on.",
            "Their sum must stay below 1.",
        )


# Splits


def _split_of(name: str, validation_fraction: float, test_fraction: float) -> Split:
    drawn = derive(0, f"image_folder/{name}") / 2**63
    if drawn < test_fraction:
        return "test"
    return "validation" if drawn < test_fraction + validation_fraction else "train"


def _splits_are_named(rows: Sequence[_Row]) -> bool:
    """Whether the rows say what belongs where. Raises DataError where only some do."""
    without = next((row for row in rows if not row.split), None)
    if without and any(row.split for row in rows):
        raise DataError(
            f"{without.where}: the split is empty, but other rows name one.",
            "Name a split in every row, or in none.",
        )
    return without is None


def _splits_of_rows(
    rows: Sequence[_Row], about: Sequence[int], firsts: dict[int, _Row]
) -> list[Split]:
    for row, image in zip(rows, about, strict=True):
        first = firsts[image]
        if row.split not in SPLITS:
            raise DataError(
                f"{row.where}: there is no split {row.split!r}.", f"Write {_either(SPLITS)}."
            )
        if row.split != first.split:
            raise DataError(
                f"{row.where}: the image {row.image} is of the split {row.split} here and of "
                f"{first.split} in {first.where}.",
                "All questions about an image belong to one split.",
            )
    known: dict[str, Split] = {split: split for split in SPLITS}
    return [known[firsts[image].split] for image in range(len(firsts))]


def _check_none_is_empty(
    examples: dict[Split, list[Example]], file: Path, images: int, named: bool
) -> None:
    for split, of in examples.items():
        if of:
            continue
        if named:
            raise DataError(
                f"No row of {file.name} is of the split {split}.",
                f"Write split {split} in the rows of some images.",
            )
        fraction = "data.validation_fraction or data.test_fraction"
        raise DataError(
            f"None of the {images:,} images of {file.name} falls to the split {split}.",
            "Name the splits in a column split, add images, or "
            f"{'lower' if split == 'train' else 'raise'} {fraction}.",
        )


# Reading


def _questions_file(folder: Path) -> Path:
    found = [folder / name for name in FILES if (folder / name).exists()]
    if not found:
        raise DataError(
            f"{folder} holds no {_either(FILES)}.",
            f"Write one with the columns {', '.join(NEEDED)}.",
        )
    if len(found) > 1:
        raise DataError(
            f"{folder} holds both {' and '.join(FILES)}.", "Keep one, and move the other away."
        )
    return found[0]


def _rows(file: Path) -> Iterator[_Row]:
    for number, values in _read_csv(file) if file.suffix == ".csv" else _read_jsonl(file):
        where = f"{file.name} row {number}"
        written = {
            name: _written(values.get(name), name, where) for name in (*NEEDED, "split", "type")
        }
        for name in NEEDED:
            if not written[name]:
                raise DataError(f"{where}: the {name} is empty.", "Fill it, or leave the row out.")
        yield _Row(where, *written.values())


def _read_csv(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The first row names the columns; empty rows are counted and passed over."""
    columns: list[str] = []
    number = 0
    try:
        for number, cells in enumerate(csv.reader(_lines(file), strict=True), 1):
            where = f"{file.name} row {number}"
            if not cells:
                continue
            if not columns:
                columns = _columns(cells)
                _check_columns(columns, where, "Separate the columns by commas.")
            elif len(cells) != len(columns):
                raise DataError(
                    f"{where}: it has {len(cells)} columns, but {len(columns)} have a name.",
                    'Put what holds a comma in quotes: "one, two"',
                )
            else:
                yield number, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{file.name} row {number + 1} cannot be read: {error}.", "Look for an open quote."
        ) from None


def _read_jsonl(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """A JSON object a row; empty rows are counted and passed over."""
    for number, line in enumerate(_lines(file), 1):
        where = f"{file.name} row {number}"
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise DataError(
                f"{where} is not JSON: {reason}.", "Write one object in braces a row."
            ) from None
        if not isinstance(values, dict):
            raise DataError(f"{where} is no JSON object.", "Write one object in braces a row.")
        columns = _columns(values)
        _check_columns(columns, where, None)
        yield number, dict(zip(columns, values.values(), strict=True))


def _columns(names: Sequence[str] | dict[str, Any]) -> list[str]:
    return [name.strip().lower() for name in names]


def _check_columns(columns: Sequence[str], where: str, hint: str | None) -> None:
    found = f"Its columns are: {', '.join(columns)}."
    for name in NEEDED:
        if name not in columns:
            raise DataError(
                f"{where}: there is no column {name}.", f"Name it so. {found} {hint or ''}".rstrip()
            )
    for name in columns:
        if columns.count(name) > 1:
            raise DataError(f"{where}: there are two columns {name}.", "Rename one.")


def _written(value: Any, column: str, where: str) -> str:
    """A cell as text: numbers as people write them, spaces and line ends as one space each."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    known = isinstance(value, str | int | float) and not isinstance(value, bool)
    if not known or (isinstance(value, float) and not math.isfinite(value)):
        raise DataError(
            f"{where}: the {column} {json.dumps(value)} is neither text nor a number.",
            "Write it in quotes.",
        )
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: the {column} {text!r} holds half a character.", "Write it whole."
        ) from None
    return text.strip() if column == "image" else " ".join(text.split())


def _lines(file: Path) -> Iterator[str]:
    """Lines with their ends, without a byte order mark. Raises DataError naming the line."""
    with readable(file), file.open("rb") as opened:
        for number, line in enumerate(opened, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{file.name} row {number} is not UTF-8: {error.reason} at its byte "
                    f"{error.start + 1}.",
                    "Convert it first: iconv -f ENCODING -t UTF-8",
                ) from None


def _name(folder: Path, row: _Row) -> str:
    """One name for every way of writing an image's path, whatever lies above the folder."""
    return Path(os.path.relpath(folder / row.image, folder)).as_posix()


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
