import ast
import csv
import random
import re
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from swe_cli import report
from swe_cli.app import SIGNS
from swe_cli.errors import StorageError
from swe_cli.files import write_bytes
from swe_cli.records import COLUMNS
from swe_cli.report.summary import means, summarise
from swe_cli.report.tables import axes_of, csv_bytes, frame, markdown, write
from swe_cli.report.terminal import print_summary

from .toys import asked, asked_controls, controls, curve, pruned


def read(table: pd.DataFrame) -> list[dict[str, str]]:
    return list(csv.DictReader(csv_bytes(table).decode().splitlines()))


def test_columns_are_the_stable_ones_then_the_axes_by_name() -> None:
    table = frame([pruned(0.1, 2.0, axes={"z.b": 1, "a.c": "x"})])
    assert tuple(table.columns) == (*COLUMNS, "a.c", "z.b")


def test_columns_that_only_some_rows_have() -> None:
    rows = [*curve(), pruned(0.5, 2.0, schedule="gradual"), pruned(0.5, 2.0, fuse=0.75)]
    table = frame([*rows, pruned(0.5, 2.0, roles="vision", axes={"a": 1})])
    assert tuple(table.columns) == (*COLUMNS, "roles", "schedule", "fuse", "a")
    lines = read(table)
    assert [line["schedule"] for line in lines].count("gradual") == 1
    assert [line["fuse"] for line in lines].count("0.75") == 1
    assert "| gradual |" in markdown(frame(rows))
    assert "schedule" not in markdown(frame(curve()))


def test_costs_are_numbers_and_no_settings() -> None:
    costs = {"parameters": 812345.0, "bytes": 3249380.0, "flops_per_token": 1600000.5}
    rows = [*curve(), pruned(None, 2.0, criterion="factors", measures={**costs, "rank": 8.0})]
    head, *lines = markdown(frame(rows)).splitlines()[4:]
    assert "| parameters | bytes | flops_per_token | rank |" in head
    assert any("| 812,345 | 3,249,380 | 1,600,000 | 8 |" in line for line in lines)


def test_controls_come_first_then_criteria_ratios_and_seeds_by_size() -> None:
    rows = [
        *curve("swe"),
        pruned(0.1, 2.0, criterion="magnitude", seed=10),
        pruned(0.1, 2.0, criterion="magnitude", seed=9),
        *controls(),
    ]
    random.Random(0).shuffle(rows)
    lines = [(r["kind"], r["criterion"], r["ratio"], r["seed"]) for r in read(frame(rows))]
    assert lines == [
        ("dense", "", "", "0"),
        ("dense_best", "", "", "0"),
        ("dense_recovered", "", "", "0"),
        ("dense_averaged", "", "", "0"),
        ("pruned", "magnitude", "0.1", "9"),
        ("pruned", "magnitude", "0.1", "10"),
        *(("pruned", "swe", ratio, "0") for ratio in ("0.1", "0.3", "0.6", "0.8", "0.9")),
    ]


def test_axes_sort_by_size_not_by_spelling_and_before_the_criterion() -> None:
    rows = [
        pruned(0.1, 2.0, criterion=criterion, axes={"tracking.every": every})
        for criterion in ("a", "b")
        for every in (100, 9)
    ]
    lines = [(r["tracking.every"], r["criterion"]) for r in read(frame(rows))]
    assert lines == [("9", "a"), ("9", "b"), ("100", "a"), ("100", "b")]


def test_nulls_are_empty_and_decimals_exact() -> None:
    line = read(frame([pruned(0.3, 2.0, bits_per_character=None, axes={"x": None})]))[0]
    assert line["ratio"] == "0.3"
    assert line["bits_per_character"] == line["rate"] == line["error"] == line["x"] == ""


def test_an_axis_of_mixed_types_and_gaps_is_written(tmp_path: Path) -> None:
    rows = [
        pruned(0.1, 2.0, axes={"n": 1, "mixed": "all", "on": True}),
        pruned(0.2, 2.0, axes={"mixed": 2, "on": False}),
    ]
    lines = read(frame(rows))
    assert [line["mixed"] for line in lines] == ["2", "all"]
    assert [line["n"] for line in lines] == ["", "1"]
    assert {line["on"] for line in lines} == {"True", "False"}
    assert all(path.stat().st_size for path in write(frame(rows), tmp_path))


def written(table: pd.DataFrame, folder: Path) -> list[Path]:
    write_bytes(folder / "summary.csv", csv_bytes(means([summarise(table)])))
    return [*write(table, folder), folder / "summary.csv"]


def test_the_same_rows_in_any_order_are_the_same_bytes(tmp_path: Path) -> None:
    rows = [*curve("swe"), *curve("magnitude", shift=0.1), *controls()]
    first = written(frame(rows), tmp_path / "a")
    second = written(frame([*rows[::-1], rows[0]]), tmp_path / "b")
    assert [path.name for path in first] == [
        "table.csv",
        "table.parquet",
        "table.md",
        "summary.csv",
    ]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(
        path.name for path in first
    )
    assert frame([pruned(0.1, 2.0)]).equals(frame([pruned(0.1, 2.0)]))
    assert csv_bytes(frame(rows)) != csv_bytes(frame(rows[1:]))


def test_parquet_reads_back_with_types_and_nulls(tmp_path: Path) -> None:
    write(frame([*controls(), pruned(0.3, 2.0)]), tmp_path)
    table = pd.read_parquet(tmp_path / "table.parquet")
    assert table["ratio"].tolist()[-1] == 0.3
    assert table["ratio"].isna().tolist() == [True] * 4 + [False]
    assert table["seed"].dtype == "int64"
    assert table["criterion"].isna().sum() == 4


def test_markdown_says_what_the_interval_is_and_rounds(tmp_path: Path) -> None:
    failed = pruned(0.9, 2.0, status="failed", error="no | luck\nat all")
    write(frame([pruned(0.3, 2.0), failed]), tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "95% intervals over the windows" in text.splitlines()[0]
    assert "| 0.3 | 0.3000 | 4.0000 | 2.0000 [1.9950, 2.0050] | -0.070 [-0.075, -0.065] |" in text
    assert "failed: no \\| luck |" in text
    assert "at all" not in text


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        write(frame(controls()), tmp_path / "file")


def test_the_table_says_where_a_layerwise_criterion_was_ranked_globally(tmp_path: Path) -> None:
    rows = frame([*curve("wanda"), *curve("swe"), *curve("sparsegpt", allocation="row")])
    write(rows, tmp_path, {"wanda": "row", "sparsegpt": "uniform"})
    head = (tmp_path / "table.md").read_text().splitlines()[0]
    assert head.endswith(" wanda ran with allocation global; published with row.")
    write(rows, tmp_path, {"sparsegpt": "uniform"})
    assert "published" not in (tmp_path / "table.md").read_text()


def test_a_table_that_was_read_is_reported_as_the_rows_it_was_made_of(tmp_path: Path) -> None:
    axes = {"training.steps": 5, "tracking.every": None}
    rows = [*asked_controls(mae=1.0), *asked({0.3: 0.9}, mae=2.0), *curve("swe", axes=axes)]
    table = frame(rows)
    write(table, tmp_path)
    read = pd.read_csv(tmp_path / "table.csv")
    assert axes_of(read) == axes_of(table) == ["tracking.every", "training.steps"]
    assert markdown(read) == markdown(table)
    assert [line.label for line in summarise(read).lines] == [
        line.label for line in summarise(table).lines
    ]


def test_every_sign_beyond_ascii_has_a_fallback() -> None:
    for path in Path(report.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text())
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        words = {
            ast.get_docstring(n, clean=False) for n in ast.walk(tree) if isinstance(n, documented)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                signs = (
                    set() if node.value in words else set(node.value) - set(map(chr, range(128)))
                )
                assert signs <= SIGNS.keys(), f"{path.name}: {node.value!r}"
    assert all(word.isascii() for word in SIGNS.values())


HOSTILE = '<img src=x onerror="alert(1)">|\x1b[31m\u202ered'


def test_what_users_named_commands_nothing() -> None:
    rows = [*controls(), pruned(0.5, 2.0, criterion=HOSTILE), pruned(0.6, 2.0, criterion="=1+1")]
    rows += [pruned(0.7, 1.9, criterion="-swe", error="@x", status="failed")]
    table = frame(rows)
    page = markdown(table)
    assert "<img" not in page
    assert "&lt;img" in page
    head, _, *lines = (line for line in page.splitlines() if line.startswith("|"))
    assert {len(re.split(r"(?<!\\)\|", line)) for line in lines} == {head.count("|") + 1}
    assert not re.search("[\x1b\u202e]", page)
    read = csv_bytes(table).decode()
    for cell in ("'=1+1", "'-swe", "'@x"):
        assert cell in read
    assert re.search(r",-0\.\d+,", read)  # a number stays one
    file = StringIO()
    print_summary(Console(width=80, file=file), summarise(table), rows=True)
    assert not re.search("[\x1b\u202e]", file.getvalue())
    assert "<img src=x" in file.getvalue()
