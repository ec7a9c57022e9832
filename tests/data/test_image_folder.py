import csv
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swe_cli.contracts import Split
from swe_cli.data.questions import QuestionSet, image_folder
from swe_cli.errors import DataError, UsageError

Image = pytest.importorskip("PIL.Image", reason="the optional package Pillow is missing")

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Row = dict[str, Any]
Write = Callable[[Path, Sequence[Row]], Path]


def write_jsonl(folder: Path, rows: Sequence[Row]) -> Path:
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def write_csv(folder: Path, rows: Sequence[Row]) -> Path:
    """The union of the rows' columns; the rows of questions begin with row 2."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    file = folder / "questions.csv"
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, columns)
        writer.writeheader()
        writer.writerows(rows)
    return file


FORMATS = pytest.mark.parametrize(
    ("write", "name", "first"),
    [(write_jsonl, "questions.jsonl", 1), (write_csv, "questions.csv", 2)],
    ids=["jsonl", "csv"],
)


def rows_of(images: int = 30, **more: Any) -> list[Row]:
    """Two questions an image, that lie apart."""
    return [
        {"image": f"{i}.png", "question": question, "answer": answer, **more}
        for question, answer in (("what is it, or who?", "a cat"), ("how many?", "3"))
        for i in range(images)
    ]


def with_splits(rows: Sequence[Row]) -> list[Row]:
    split = {"0.png": "test", "1.png": "validation"}
    return [{**row, "split": split.get(row["image"], "train")} for row in rows]


def make_folder(folder: Path, images: int = 30, colour: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    for i in range(images):
        Image.new("RGB", (8, 8), (i + 1, colour, 0)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "mine")


def load(folder: Path | str, *, validation: float = 0.2, test: float = 0.2) -> QuestionSet:
    return image_folder(
        path=str(folder), image_size=8, validation_fraction=validation, test_fraction=test
    )


def images(built: QuestionSet, split: Split) -> set[str]:
    """The names of a split's images, told by their pixels."""
    seen = {e.image for e in built.examples[split]}
    return {f"{built.pixels[image, 0, 0, 0] - 1}.png" for image in seen}


@FORMATS
def test_questions_come_with_their_images(
    folder: Path, write: Write, name: str, first: int
) -> None:
    rows = with_splits(rows_of())
    rows[1]["type"], rows[2]["type"] = "animal", ""
    write(folder, rows)
    built = load(folder)
    assert built.pixels.shape == (30, 3, 8, 8)
    told = {}
    for split in SPLITS:
        asked = [example.image for example in built.examples[split]]
        assert asked == sorted(asked)
        for example, where in zip(built.examples[split], built.where[split], strict=True):
            told[where] = (
                f"{built.pixels[example.image, 0, 0, 0] - 1}.png",
                *(example.question, example.answer, split, example.kind),
            )
    assert told == {
        f"{name} row {first + i}": (
            *(row["image"], row["question"], row["answer"], row["split"]),
            "animal" if i == 1 else "question",
        )
        for i, row in enumerate(rows)
    }
    assert built.notes == ()


@pytest.mark.parametrize("more", [{}, {"type": "of things"}])
def test_csv_and_jsonl_give_the_same_data(tmp_path: Path, more: Row) -> None:
    rows = [*rows_of(**more), {"image": "0.png", "question": "Größe\n  in cm?", "answer": "drei"}]
    one, two = (make_folder(tmp_path / name) for name in ("one", "two"))
    write_jsonl(one, rows)
    write_csv(two, rows)
    first, second = load(one), load(two)
    assert first.examples == second.examples
    assert first.sha256 == second.sha256
    questions = [e.question for split in SPLITS for e in first.examples[split]]
    assert "Größe in cm?" in questions


def test_numbers_are_written_as_people_write_them(folder: Path) -> None:
    rows = with_splits(rows_of())
    answers = [3, 3.0, 2.5, -1, 10**20, 0.0, " 7 "]
    for row, answer in zip(rows, answers, strict=False):
        row["answer"] = answer
    write_jsonl(folder, rows)
    built = load(folder)
    told = {
        where: example.answer
        for split in SPLITS
        for example, where in zip(built.examples[split], built.where[split], strict=True)
    }
    assert [told[f"questions.jsonl row {i + 1}"] for i in range(len(answers))] == [
        *("3", "3", "2.5", "-1", "100000000000000000000", "0", "7")
    ]


def test_an_image_asked_about_twice_is_decoded_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "below").mkdir()
    rows = with_splits(rows_of())
    for row, spelt in zip(rows, ["./0.png", "below/../1.png", str(folder / "2.png")], strict=False):
        row["image"] = spelt
    rows[0]["split"], rows[1]["split"] = "test", "validation"
    write_jsonl(folder, rows)
    opened: list[Path] = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.append(path) or real(path))
    built = load(folder)
    assert len(opened) == len(built.pixels) == 30
    assert len(built.examples["test"]) == len(built.examples["validation"]) == 2


def test_images_may_lie_below_the_folder_or_elsewhere(folder: Path, tmp_path: Path) -> None:
    rows = with_splits(rows_of())
    (folder / "below").mkdir()
    (folder / "5.png").rename(folder / "below" / "5.png")
    (folder / "6.png").rename(tmp_path / "6.png")
    (folder / "7.png").rename(tmp_path / "7.png")
    moved = {"5.png": "below/5.png", "6.png": str(tmp_path / "6.png"), "7.png": "../7.png"}
    write_jsonl(folder, [{**row, "image": moved.get(row["image"], row["image"])} for row in rows])
    assert {"5.png", "6.png", "7.png"} < images(load(folder), "train")


def test_a_hash_of_the_name_decides_the_split(tmp_path: Path, folder: Path) -> None:
    write_jsonl(folder, rows_of())
    built = load(folder)
    seen = [images(built, split) for split in SPLITS]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 30
    assert sum(map(len, built.examples.values())) == 60
    assert len(seen[0]) > 10
    more = make_folder(tmp_path / "more", 40)
    write_csv(more, rows_of(40)[::-1])
    later = load(more)
    for split, names in zip(SPLITS, seen, strict=True):
        assert names < images(later, split) | {"40.png"}
        assert names == {n for n in images(later, split) if int(n.removesuffix(".png")) < 30}


def test_fractions_are_of_all_images(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "many", 250)
    write_jsonl(folder, rows_of(250))
    for validation, test in ((0.1, 0.5), (0.4, 0.1)):
        built = load(folder, validation=validation, test=test)
        assert abs(len(images(built, "validation")) / 250 - validation) < 0.1
        assert abs(len(images(built, "test")) / 250 - test) < 0.1


def test_identity_is_the_content(tmp_path: Path) -> None:
    def identity(name: str, rows: Sequence[Row], colour: int = 0) -> str:
        write_jsonl(make_folder(tmp_path / name, colour=colour), rows)
        return load(tmp_path / name).sha256

    rows = rows_of()
    own = identity("one", rows)
    assert identity("two", rows) == own
    renamed = with_splits(rows)
    before = identity("three", renamed)
    for path in sorted((tmp_path / "three").glob("*.png")):
        path.rename(path.with_name(f"new {path.name}"))
    write_jsonl(tmp_path / "three", [{**row, "image": f"new {row['image']}"} for row in renamed])
    assert load(tmp_path / "three").sha256 == before
    others = {
        before,
        identity("four", rows, colour=9),
        identity("five", [*rows[:-1], {**rows[-1], "answer": "4"}]),
        identity("six", [{**row, "type": "x"} for row in rows]),
    }
    assert len(others | {own}) == 5


def test_images_of_another_size_are_noted(folder: Path) -> None:
    Image.new("RGB", (20, 10)).save(folder / "3.png")
    write_jsonl(folder, with_splits(rows_of()))
    (note,) = load(folder).notes
    assert "1 of 30 images are not 8×8 (one is 20×10)" in note


@FORMATS
def test_a_byte_order_mark_and_other_line_ends_are_read(
    folder: Path, write: Write, name: str, first: int
) -> None:
    file = write(folder, with_splits(rows_of()))
    plain = load(folder)
    data = file.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    file.write_bytes(b"\xef\xbb\xbf" + data)
    assert load(folder).sha256 == plain.sha256


@FORMATS
def test_empty_rows_are_counted(folder: Path, write: Write, name: str, first: int) -> None:
    rows = with_splits(rows_of())
    rows[3]["answer"] = ""
    file = write(folder, rows)
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join([*lines[:2], "\n", "\n", *lines[2:]]), encoding="utf-8")
    with pytest.raises(DataError, match=f"{name} row {first + 5}: the answer is empty"):
        load(folder)


def test_names_of_columns_may_be_written_large(folder: Path) -> None:
    file = write_csv(folder, with_splits(rows_of()))
    plain = load(folder)
    file.write_text(file.read_text().replace("image,question", "Image , Question", 1))
    assert load(folder).sha256 == plain.sha256


@FORMATS
@pytest.mark.parametrize("column", ["image", "question", "answer"])
def test_what_a_row_lacks_is_named(
    folder: Path, write: Write, name: str, first: int, column: str
) -> None:
    rows = with_splits(rows_of())
    for nothing in ("", "  ", *([None] if write is write_jsonl else [])):
        write(folder, [*rows[:10], {**rows[10], column: nothing}, *rows[11:]])
        with pytest.raises(DataError, match=f"{name} row {first + 10}: the {column} is empty"):
            load(folder)
    without = [{key: row[key] for key in row if key != column} for row in rows]
    write(folder, without)
    with pytest.raises(DataError, match=f"{name} row 1: there is no column {column}") as caught:
        load(folder)
    assert "split" in caught.value.message
    assert '"one, or two?"' in str(caught.value.hint)
    if write is write_jsonl:
        write(folder, [*rows[:10], without[10], *rows[11:]])
        with pytest.raises(DataError, match=f"{name} row 11: there is no column {column}"):
            load(folder)


@FORMATS
@pytest.mark.parametrize(
    ("place", "split", "said"),
    [
        (4, "dev", "row {}: there is no split 'dev'"),
        (4, "", "row {}: there is no split ''"),
        (30, "train", "row {}: the image 0.png is of the split train here and of test in {} row "),
    ],
)
def test_a_wrong_split_is_named(
    folder: Path, write: Write, name: str, first: int, place: int, split: str, said: str
) -> None:
    rows = with_splits(rows_of())
    rows[place]["split"] = split
    write(folder, rows)
    with pytest.raises(DataError, match=f"{name} " + said.format(first + place, name)):
        load(folder)


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_without_images_is_named(folder: Path, split: Split) -> None:
    rows = with_splits(rows_of())
    write_jsonl(folder, [row for row in rows if row["split"] != split])
    with pytest.raises(
        DataError, match=f"None of the .* images of questions.jsonl is of the split {split}"
    ):
        load(folder)


def test_too_few_images_for_a_hash_are_told_what_to_do(folder: Path) -> None:
    write_jsonl(folder, rows_of(2))
    with pytest.raises(DataError, match=r"None of the 2 images of .* is of the split") as caught:
        load(folder)
    assert "Name a split in every row" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"image": "0.png", ', "row 5: Expecting"),
        ("[1, 2]", "row 5: it is no JSON object"),
        ('{"image": ' + "9" * 5000 + "}", "row 5: Exceeds"),
        ("[" * 100_000, "row 5: maximum recursion"),
        ('{"image": "0.png", "question": "?", "answer": [1]}', r"row 5: the answer \[1\]"),
        ('{"image": "0.png", "question": "?", "answer": true}', "row 5: the answer true is nei"),
        ('{"image": "0.png", "question": "?", "answer": NaN}', "row 5: the answer NaN is neither"),
        ('{"image": "0.png", "question": "?", "answer": 1e999}', "row 5: the answer Infinity"),
        ('{"image": "0.png", "question": {}, "answer": "a"}', "row 5: the question {}"),
        (
            '{"image": "0.png", "question": "\\ud800", "answer": "a"}',
            "row 5: .*surrogates not allowed",
        ),
        (
            '{"image": "0\\u0000", "question": "?", "answer": "a"}',
            "row 5: .* cannot be read: .*null",
        ),
        ('{"image": "0.png", "answer": "?", "Answer": "a"}', "row 5: there is no column question"),
        ('{"image": "0", "question": "?", "answer": "", "Answer": ""}', "row 5: .*two columns ans"),
    ],
)
def test_a_row_that_is_not_a_question_is_named(folder: Path, line: str, said: str) -> None:
    file = write_jsonl(folder, rows_of())
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:4], line, *lines[5:]]))
    with pytest.raises(DataError, match=rf"questions\.jsonl {said}") as caught:
        load(folder)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0.png,one, two,a", "row 5: it has 4 columns, but 3 have a name"),
        ("0.png,what?", "row 5: it has 2 columns, but 3 have a name"),
        ('0.png,"open,a\n1.png,"no",a', "row 5: ',' expected"),
        (f"0.png,{'x' * 200_000},a", "row 5: field larger"),
    ],
)
def test_a_csv_row_that_cannot_be_read_is_named(folder: Path, line: str, said: str) -> None:
    file = write_csv(folder, rows_of())
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:4], line, *lines[5:]]))
    with pytest.raises(DataError, match=rf"questions\.csv {said}") as caught:
        load(folder)
    assert len(str(caught.value)) < 300


def test_a_quote_that_is_never_closed_is_named_where_it_opens(folder: Path) -> None:
    rows = "".join(f"{i}.png,what?,a\n" for i in range(30))
    (folder / "questions.csv").write_text(
        f'image,question,answer\n5.png,it?,"a b"\n6.png,"it\n{rows}'
    )
    with pytest.raises(DataError, match=r"questions\.csv row 3: unexpected end"):
        load(folder)


def test_columns_that_are_not_separated_by_commas_are_shown(folder: Path) -> None:
    (folder / "questions.csv").write_text("image;question;answer\n0.png;what?;a\n")
    with pytest.raises(DataError, match="row 1: there is no column image") as caught:
        load(folder)
    assert "image;question;answer" in caught.value.message
    assert '0.png,"one, or two?",two' in str(caught.value.hint)


def test_two_columns_of_one_name_are_refused(folder: Path) -> None:
    (folder / "questions.csv").write_text("image,question,answer,answer\n0.png,what?,a,b\n")
    with pytest.raises(DataError, match="row 1: there are two columns answer"):
        load(folder)


@FORMATS
def test_what_is_not_utf8_is_named(folder: Path, write: Write, name: str, first: int) -> None:
    file = write(folder, rows_of())
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:6], lines[6].replace(b"cat", b"caf\xe9"), *lines[7:]]))
    with pytest.raises(DataError, match=f"{name} row 7 is not UTF-8") as caught:
        load(folder)
    assert "iconv" in str(caught.value.hint)


@FORMATS
def test_an_unreadable_image_is_named_with_the_first_row_about_it(
    folder: Path, write: Write, name: str, first: int
) -> None:
    write(folder, with_splits(rows_of()))
    (folder / "4.png").write_text("no image")
    with pytest.raises(DataError, match=rf"{name} row {first + 4}: .*4\.png cannot be read: it is"):
        load(folder)
    (folder / "4.png").unlink()
    with pytest.raises(
        DataError, match=rf"{name} row {first + 4}: .*4\.png cannot be read: No such"
    ):
        load(folder)


def test_a_folder_holds_one_file_of_questions(folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"holds neither questions\.jsonl nor questions\.csv"
    ) as caught:
        load(folder)
    assert "image, question, answer" in str(caught.value.hint)
    write_csv(folder, rows_of())
    file = write_jsonl(folder, rows_of())
    with pytest.raises(DataError, match=r"both questions\.jsonl and questions\.csv"):
        load(folder)
    (folder / "questions.csv").unlink()
    file.write_text("\n")
    with pytest.raises(DataError, match=r"questions\.jsonl holds no question"):
        load(folder)
    file.unlink()
    file.mkdir()
    with pytest.raises(DataError, match="is a directory"):
        load(folder)
    file.rmdir()
    os.mkfifo(file)  # reading it would wait for ever
    with pytest.raises(DataError, match="is a pipe"):
        load(folder)


def test_a_path_that_is_no_folder_is_refused(folder: Path) -> None:
    for path in (folder / "0.png", folder / "none", f"{folder}\0"):
        with pytest.raises(DataError, match="is not a folder") as caught:
            load(path)
        assert str(path) in caught.value.message


def test_paths_are_relative_to_the_current_folder_and_know_home(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(folder, rows_of())
    whole = load(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder.parent))
    for path in (".", "~/mine", "../mine", os.path.relpath(folder)):
        again = load(path)
        assert again.sha256 == whole.sha256
        np.testing.assert_array_equal(again.pixels, whole.pixels)


def test_fractions_that_leave_nothing_to_train_on_are_refused(folder: Path) -> None:
    write_jsonl(folder, rows_of())
    with pytest.raises(UsageError, match="nothing to train on"):
        load(folder, validation=0.5, test=0.5)
