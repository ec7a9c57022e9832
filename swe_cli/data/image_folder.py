"""A folder of the user's own images, and a file beside them of what is asked about each."""

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from swe_cli.contracts import Example, Split
from swe_cli.data.images import ImageSize, decode
from swe_cli.data.questions import QuestionSet, digest_of
from swe_cli.data.text import SPLITS, Share, check_shares, reading
from swe_cli.errors import DataError
from swe_cli.seeds import derive

NEEDED = ("image", "question", "answer")
COLUMNS = (*NEEDED, "split", "type")
EXAMPLES = {  # of a row, by the file it is in
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
    files = [folder / name for name in EXAMPLES if (folder / name).exists()]
    if len(files) != 1:
        held = "both {} and {}" if files else "neither {} nor {}"
        raise DataError(
            f"{folder} holds {held.format(*EXAMPLES)}.",
            f"Let it hold one, with the columns {', '.join(NEEDED)}.",
        )
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
        drawn = _drawn_split(name, validation_fraction, test_fraction)
        split = _named_split(name, rows) if named else drawn
        where[split] += [row["where"] for row in rows]
        examples[split] += [
            Example(place, row["question"], row["answer"], row["type"] or "question")
            for row in rows
        ]
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


def _drawn_split(name: str, validation_fraction: float, test_fraction: float) -> Split:
    drawn = derive(0, f"image_folder/{name}") / 2**63
    if drawn < test_fraction:
        return "test"
    return "validation" if drawn < test_fraction + validation_fraction else "train"


def _named_split(name: str, rows: Sequence[Row]) -> Split:
    """What all rows about an image name. Raises DataError for one that names none, or another."""
    first = rows[0]
    for row in rows:
        if row["split"] not in SPLITS:
            raise DataError(
                f"{row['where']}: there is no split {row['split']!r}.",
                "Write train, validation or test in every row, or leave the column out.",
            )
        if row["split"] != first["split"]:
            raise DataError(
                f"{row['where']}: the image {name} is of the split {row['split']} here and of "
                f"{first['split']} in {first['where']}.",
                "All questions about an image belong to one split.",
            )
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
                hint = f"A row is written like this: {EXAMPLES[file.name]}"
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
