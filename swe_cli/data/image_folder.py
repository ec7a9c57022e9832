"""A folder of the user's own images, and a file beside them of what is asked about each."""

import csv
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from swe_cli.contracts import Example, Split
from swe_cli.data.images import check_image_size, decode
from swe_cli.data.questions import QuestionSet, digest_of
from swe_cli.data.text import SPLITS, check_fractions, reading
from swe_cli.errors import DataError
from swe_cli.seeds import derive

FILES = ("questions.jsonl", "questions.csv")
NEEDED = ("image", "question", "answer")
ONE_OBJECT = "Write one object in braces a row."


class Row(NamedTuple):
    """``where``: the file and the row. ``image``: one name for every way of writing its path,
    whatever lies above the folder. ``split`` is empty where none is named.
    """

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
    check_image_size(image_size)
    check_fractions(validation_fraction, test_fraction)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        hint = "Name the folder that holds the images: data.path=FOLDER"
        raise DataError(f"{path} is not a folder.", hint)
    folder = folder.resolve()
    file = _questions_file(folder)
    rows = list(_rows(file, folder))
    if not rows:
        raise DataError(f"{file} holds no question.", "Write at least one row a split.")
    first_rows: dict[str, Row] = {}
    for row in rows:
        first_rows.setdefault(row.image, row)
    if named := any(row.split for row in rows):
        splits = _named_splits(rows, first_rows)
    else:
        splits = {name: _split(name, validation_fraction, test_fraction) for name in first_rows}
    places = {name: place for place, name in enumerate(first_rows)}
    rows.sort(key=lambda row: places[row.image])
    examples: dict[Split, list[Example]] = {}
    where: dict[Split, list[str]] = {}
    for split in SPLITS:
        of_split = [row for row in rows if splits[row.image] == split]
        if not of_split:
            raise _nothing_in(split, file, len(places), named)
        where[split] = [row.where for row in of_split]
        examples[split] = [
            Example(places[row.image], row.question, row.answer, row.kind or "question")
            for row in of_split
        ]
    firsts = [row.where for row in first_rows.values()]
    decoded = decode([folder / name for name in places], firsts.__getitem__, size=image_size)
    sha256 = digest_of(examples, decoded.sha256)
    return QuestionSet(decoded.pixels, examples, sha256, where, decoded.notes)


# Splits


def _split(name: str, validation_fraction: float, test_fraction: float) -> Split:
    drawn = derive(0, f"image_folder/{name}") / 2**63
    if drawn < test_fraction:
        return "test"
    return "validation" if drawn < test_fraction + validation_fraction else "train"


def _named_splits(rows: Sequence[Row], first_rows: Mapping[str, Row]) -> dict[str, Split]:
    """By image. Raises DataError for rows that name no split, an unknown or another one."""
    for row in rows:
        first = first_rows[row.image]
        if not row.split:
            raise DataError(
                f"{row.where}: the split is empty, but other rows name one.",
                "Name a split in every row, or in none.",
            )
        if row.split not in SPLITS:
            hint = "Write train, validation or test."
            raise DataError(f"{row.where}: there is no split {row.split!r}.", hint)
        if row.split != first.split:
            raise DataError(
                f"{row.where}: the image {row.image} is of the split {row.split} here and of "
                f"{first.split} in {first.where}.",
                "All questions about an image belong to one split.",
            )
    return {name: SPLITS[SPLITS.index(row.split)] for name, row in first_rows.items()}


def _nothing_in(split: Split, file: Path, images: int, named: bool) -> DataError:
    if named:
        return DataError(
            f"No row of {file.name} is of the split {split}.",
            f"Write split {split} in the rows of some images.",
        )
    change = "lower" if split == "train" else "raise"
    return DataError(
        f"None of the {images:,} images of {file.name} falls to the split {split}.",
        "Name the splits in a column split, add images, or "
        f"{change} data.validation_fraction or data.test_fraction.",
    )


# Reading


def _questions_file(folder: Path) -> Path:
    files = [folder / name for name in FILES if (folder / name).exists()]
    if not files:
        hint = f"Write one with the columns {', '.join(NEEDED)}."
        raise DataError(f"{folder} holds no {' or '.join(FILES)}.", hint)
    if len(files) > 1:
        hint = "Keep one, and move the other away."
        raise DataError(f"{folder} holds both {' and '.join(FILES)}.", hint)
    return files[0]


def _rows(file: Path, folder: Path) -> Iterator[Row]:
    for where, cells in _csv_rows(file) if file.suffix == ".csv" else _json_rows(file):
        image, *others = (
            _text(cells.get(column), column, where) for column in (*NEEDED, "split", "type")
        )
        for column, text in zip(NEEDED, (image, *others), strict=False):
            if not text.strip():
                hint = "Fill it, or leave the row out."
                raise DataError(f"{where}: the {column} is empty.", hint)
        name = Path(os.path.relpath(folder / image.strip(), folder)).as_posix()
        yield Row(where, name, *(" ".join(text.split()) for text in others))


def _csv_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The first row names the columns; empty rows are counted and passed over."""
    columns: list[str] = []
    number = 0
    try:
        for number, cells in enumerate(csv.reader(_lines(file), strict=True), 1):
            where = f"{file.name} row {number}"
            if cells and not columns:
                columns = _columns(cells, where, " Separate the columns by commas.")
            elif cells and len(cells) != len(columns):
                raise DataError(
                    f"{where}: it has {len(cells)} columns, but {len(columns)} have a name.",
                    'Put what holds a comma in quotes: "one, two"',
                )
            elif cells:
                yield where, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        where = f"{file.name} row {number + 1}"
        raise DataError(f"{where} cannot be read: {error}.", "Look for an open quote.") from None


def _json_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """A JSON object a row; empty rows are counted and passed over."""
    for number, line in enumerate(_lines(file), 1):
        where = f"{file.name} row {number}"
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise DataError(f"{where} is not JSON: {reason}.", ONE_OBJECT) from None
        if not isinstance(cells, dict):
            raise DataError(f"{where} is no JSON object.", ONE_OBJECT)
        yield where, dict(zip(_columns(cells, where), cells.values(), strict=True))


def _columns(names: Iterable[str], where: str, hint: str = "") -> list[str]:
    """Names of columns in small letters: all that are needed, and none twice."""
    columns = [name.strip().lower() for name in names]
    for name in NEEDED:
        if name not in columns:
            hint = f"Name it so. Its columns are: {', '.join(columns)}.{hint}"
            raise DataError(f"{where}: there is no column {name}.", hint)
    for name in columns:
        if columns.count(name) > 1:
            raise DataError(f"{where}: there are two columns {name}.", "Rename one.")
    return columns


def _text(cell: Any, column: str, where: str) -> str:
    """A cell as people write it: a number without needless decimals."""
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    is_number = isinstance(cell, int | float) and not isinstance(cell, bool) and math.isfinite(cell)
    if not isinstance(cell, str) and not is_number:
        shown = f"{where}: the {column} {json.dumps(cell)}"
        raise DataError(f"{shown} is neither text nor a number.", "Write it in quotes.")
    if re.search("[\ud800-\udfff]", str(cell)):
        raise DataError(
            f"{where}: the {column} {cell!r} holds half a character.", "Write it whole."
        )
    return str(cell)


def _lines(file: Path) -> Iterator[str]:
    """Lines with their ends, without a byte order mark. Raises DataError naming the line."""
    with reading(file) as opened:
        for number, line in enumerate(opened, 1):
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{file.name} row {number} is not UTF-8: {error.reason} at its byte "
                    f"{error.start + 1}.",
                    "Convert it first: iconv -f ENCODING -t UTF-8",
                ) from None
