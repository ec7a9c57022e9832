"""Reports of rows that answer questions: accuracy, MAE and roles beside loss."""

from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from swe_cli.errors import SweError
from swe_cli.records import Row
from swe_cli.report.answer import break_point
from swe_cli.report.figures import curve as figure_of
from swe_cli.report.figures import write_figure
from swe_cli.report.quantities import ACCURACY, MAE, Quantity, bounds
from swe_cli.report.summary import Point, chosen
from swe_cli.report.tables import frame, write
from swe_cli.report.terminal import print_row, print_summary

from .toys import (
    asked,
    asked_controls,
    changed,
    channel,
    controls,
    curve,
    data_of,
    names,
    only,
    pruned,
    summed,
    title,
)

FALL = {0.3: 0.9, 0.6: 0.93, 0.9: 0.5}
ROLES = ("vision", "projector", "language", "all")


def grid(*criteria: str, mae: float | None = None) -> list[Row]:
    return [
        row for c in criteria for r in ROLES for row in asked(FALL, roles=r, criterion=c, mae=mae)
    ]


def rendered(made: Sequence[Row], *, rows: bool = False) -> str:
    file = StringIO()
    print_summary(Console(width=80, file=file), summed(made), rows=rows)
    return file.getvalue()


def squeezed(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def ends(point: Point, column: str) -> tuple[float, ...]:
    return tuple(point[name] for name in (column, *bounds(column)))


def drawn(rows: Sequence[Row], quantity: Quantity) -> dict[str, Any]:
    return figure_of(summed(rows), quantity).to_dict()


def test_one_seed_keeps_the_interval_of_its_accuracy() -> None:
    point = only(asked(FALL, mae=2.0)).points[0]
    assert point["interval"] == "windows"
    assert ends(point, "accuracy") == (0.9, 0.88, 0.92)
    assert ends(point, "accuracy_before_recovery") == (0.8, None, None)
    assert ends(point, "mae") == (2.0, 1.8, 2.2)
    assert ends(point, "delta_mae") == (1.0, 2.0 - 1.1, 1.1)
    cut = data_of(drawn(asked(FALL), ACCURACY), "area")[0]
    assert (cut["low"], cut["high"]) == pytest.approx((-0.5, 0.5))


def test_several_seeds_get_a_t_interval() -> None:
    # Means 0.8 and 0.9: s / √2 = 0.05, t(0.975, 1) = 12.7062.
    point = only([*asked({0.3: 0.8}), *asked({0.3: 0.9}, seed=1)]).points[0]
    assert point["interval"] == "seeds"
    for column, mean in (("accuracy", 0.85), ("accuracy_before_recovery", 0.75)):
        wanted = (mean, mean - 0.63531, mean + 0.63531)
        assert ends(point, column) == pytest.approx(wanted, abs=1e-5)


def test_a_failed_seed_leaves_no_accuracy_and_a_text_has_none() -> None:
    failed = changed(asked({0.3: 0.9}, seed=1)[0], status="failed", error="boom")
    point = only([*asked({0.3: 0.9}), failed]).points[0]
    assert point["accuracy"] is None
    summary = summed([*controls(), *curve()])
    assert not ACCURACY.drawable([*summary.controls, *summary.cuts])
    assert not summary.baselines
    assert summed([*asked_controls(mae=1.0), *asked(FALL, mae=2.0)]).baselines == pytest.approx(
        {"accuracy": 0.372, "mae": 4.65}
    )


def test_the_highest_accuracy_and_the_lowest_mae_are_best() -> None:
    line = only(asked(FALL))
    assert chosen(line.points, ACCURACY) is line.points[1]
    rising = [changed(r, measures={"mae": m}) for r, m in zip(asked(FALL), (3, 2, 4), strict=True)]
    line = only(rising)
    assert chosen(line.points, MAE) is line.points[1]


def test_accuracy_breaks_where_a_point_is_lost() -> None:
    # Lower bounds of the delta: -0.005, -0.010, -0.011, and 0.005 again, which does not count.
    line = only(asked({0.1: 0.9, 0.2: 0.895, 0.3: 0.894, 0.4: 0.91}))
    assert break_point(line, ACCURACY) == "0.2"
    assert break_point(line, replace(ACCURACY, tolerance=0.02)) == "≥0.4"
    assert break_point(only(curve()), ACCURACY) == "–"


def test_accuracy_is_drawn_in_points_with_the_baseline() -> None:
    figure = drawn([*asked_controls(), *asked(FALL)], ACCURACY)
    assert channel(figure, "line", "y")["axis"]["title"] == "against dense (points)"
    assert title(figure)[0] == "gpt_nano on kjv: accuracy against dense (90.0%)"
    rules = data_of(figure, "rule")
    references = [line["value"] for line in rules if "place" not in line]  # or it is a pointer
    assert references == pytest.approx([0, 0, 1, -1, -29, 37.2 - 90])
    values: dict[str, list[float]] = {s: [] for s in ("after recovery", "before recovery")}
    for cut in data_of(figure, "line"):
        values[cut["stage"]].append(cut["value"])
    assert values["after recovery"] == pytest.approx([0, 3, -40])
    assert values["before recovery"] == pytest.approx([-10, -7, -50])
    assert names(figure)[0][:2] == [
        "always the commonest answer −52.8",
        "dense, images shuffled −29.0",
    ]


def test_an_error_is_drawn_in_the_unit_of_the_answers(tmp_path: Path) -> None:
    rows = [*asked_controls(mae=1.0), *grid("swe", "magnitude", mae=2.0)]
    figure = drawn(rows, MAE)
    assert len(figure["concat"]) == 4
    assert channel(figure, "line", "y")["axis"]["title"] == "against dense (unit of the answers)"
    assert names(figure)[1][-1] == "always the median answer +3.650"
    paths = write_figure(figure_of(summed(rows), MAE), tmp_path, "mae")
    assert all(path.stat().st_size > 5000 for path in paths)


def test_a_figure_of_what_no_cut_has_is_refused() -> None:
    with pytest.raises(SweError, match="finite difference to dense in accuracy"):
        drawn([*controls(), *curve()], ACCURACY)


def test_the_terminal_says_what_the_answers_are_worth() -> None:
    made = [*asked_controls(mae=1.0), *asked(FALL, mae=2.0)]
    rows = squeezed(rendered(made))
    assert "Mean absolute error after recovery, less dense's" in rows
    assert "dense, images shuffled 2.000 ▲1.00" in rows
    assert "Always the median answer: MAE 4.6500; with the images shuffled: 2.0000." in rows
    rows = squeezed(rendered(made, rows=True))
    wanted = "dense, images shuffled 2.0000 [1.8000, 2.2000] +1.0000 [+0.9000, +1.1000] ▲"
    assert wanted in rows
    # Higher is better here, and the arrow still points to where the value went.
    assert "0.6 83.0% 93.0% [91.0%, 95.0%] +3.0 [+2.5, +3.5] ▲" in rows
    assert "0.9 40.0% 50.0% [48.0%, 52.0%] −40.0 [−40.5, −39.5] ▼" in rows


def test_words_are_judged_by_accuracy_in_points() -> None:
    made = [row for seed in range(3) for row in asked_controls(seed)]
    for seed, more in enumerate((0.0, 0.01, 0.02)):
        made += asked({0.6: 0.9 + more}, seed=seed)
        made += asked({0.6: 0.9}, seed=seed, criterion="magnitude")
    rows = squeezed(rendered(made))
    assert "swe +1.0 <0.6" in rows  # t(0.975, 2) · 1 / √3: 2.5 points up and down
    assert "Always the commonest answer: 37.2%; with the images shuffled: 61.0%." in rows
    said = " ".join(rows)
    told = "Against magnitude at 0.6: +1.0 [−1.5, +3.5] points, 3 seeds; could have seen 3.3"
    assert f"{told}: undecided." in said
    assert "To see 1 point there would take 10 seeds (paired SD 1.0)." in said


def test_many_lines_fit() -> None:
    made = [*asked_controls(mae=1.0), *grid("swe", "net_movement", "random", mae=2.0)]
    for everything in (False, True):
        text = rendered(made, rows=everything)
        assert max(map(len, text.splitlines())) <= 80
    rows = squeezed(text)
    assert rows.count("0.6 83.0% 93.0% [91.0%, 95.0%] +3.0 [+2.5, +3.5] ▲") == 3 * len(ROLES)
    assert "swe (roles vision): dense ≥0.9, dense recovered ≥0.9, dense, accuracy 0.6" in rows


def test_better_is_green_whichever_way_it_points() -> None:
    file = StringIO()
    console = Console(width=80, file=file, force_terminal=True, color_system="standard")
    print_summary(console, summed(asked({0.6: 0.93, 0.9: 0.5})))
    text = file.getvalue()
    assert "\x1b[32m▲3.0" in text
    assert "\x1b[31m▼40.0" in text


def test_a_text_says_nothing_of_answers() -> None:
    text = rendered([*controls(), *curve()], rows=True)
    assert not any(word in text for word in ("ccuracy", "MAE", "lways"))


def head_and_lines(rows: Sequence[Row], folder: Path) -> tuple[str, list[dict[str, str]]]:
    write(frame(rows), folder)
    head, *rest = (folder / "table.md").read_text().splitlines()
    titles, _, *lines = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in rest if line[:1] == "|"
    ]
    return head, [dict(zip(titles, line, strict=True)) for line in lines]


def test_markdown_has_the_columns_of_questions(tmp_path: Path) -> None:
    rows = [*asked(FALL, roles="vision", mae=2.0), *asked(FALL, roles="language", mae=2.0)]
    failed = changed(rows[0], ratio=0.95, status="failed", error="boom", measures={})
    head, lines = head_and_lines([*rows, failed], tmp_path)
    assert "Accuracy is in %" in head
    assert "Always the commonest answer: accuracy 37.2%." in head
    found = next(line for line in lines if line["roles"] == "vision" and line["ratio"] == "0.6")
    wanted = {
        "accuracy": "93.0% [91.0%, 95.0%]",
        "delta accuracy": "+3.0 [+2.5, +3.5]",
        "MAE": "2.0000 [1.8000, 2.2000]",
        "unparsable": "12.5%",
        "sparsity.vision": "0.6000",
        "sparsity.language": "",
    }
    assert {name: found[name] for name in wanted} == wanted
    assert not {"bits per character", "accuracy.color", "accuracy_majority"} & set(found)
    (broken,) = [line for line in lines if line["loss"].startswith("failed")]
    assert broken["accuracy"] == ""


def test_markdown_of_one_role_says_it_above_and_has_no_empty_columns(
    tmp_path: Path,
) -> None:
    head, lines = head_and_lines(asked(FALL, roles="vision"), tmp_path)
    assert "roles" not in head
    assert not {"roles", "sparsity.vision", "MAE"} & set(lines[0])
    assert "roles vision" in (tmp_path / "table.md").read_text()
    head, lines = head_and_lines(curve(), tmp_path)
    assert "Accuracy" not in head
    assert list(lines[0])[-2:] == ["loss", "delta"]
    bits = [changed(row, bits_per_character=2.5) for row in asked(FALL)]
    assert head_and_lines(bits, tmp_path)[1][0]["bits per character"] == "2.5000"


def test_a_row_shows_its_answers() -> None:
    file = StringIO()
    (row,) = asked({0.6: 0.93}, roles="vision", mae=2.0)
    print_row(Console(width=80, file=file), row)
    rows = squeezed(file.getvalue())
    for wanted in (
        "roles vision",
        "sparsity.vision 60.0%",
        "accuracy before recovery 83.0%",
        "accuracy 93.0% [91.0%, 95.0%]",
        "accuracy.color 46.5%",
        "delta accuracy +3.0 points [+2.5, +3.5]",
        "accuracy majority 37.2%",
        "mae 2.0000 [1.8000, 2.2000]",
        "mae median 4.6500",
        "rmse 4",
        "unparsable 12.5%",
    ):
        assert wanted in rows
    file = StringIO()
    print_row(Console(width=80, file=file), pruned(0.6, 1.9))
    assert "accuracy" not in file.getvalue()
