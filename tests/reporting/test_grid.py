"""Many lines: the grid that shows them all, and the few that curves are drawn of."""

from pathlib import Path
from typing import Any

import pytest

from swe_cli.records import Row
from swe_cli.report.figures import curve as figure_of
from swe_cli.report.figures import shown_lines, write_figure
from swe_cli.report.grid import columns_of, grid
from swe_cli.report.quantities import ACCURACY, LOSS

from .toys import (
    CURVE,
    asked,
    asked_controls,
    changed,
    channel,
    controls,
    curve,
    layers_of,
    pruned,
    summed,
    title,
)

NAMES = ("swe", "magnitude", "random", "fisher", "movement", "snip", "stability", "wanda")


def ranked(*names: str, **changes: object) -> list[Row]:
    """One line a name, each worse than the one before."""
    return [row for i, name in enumerate(names) for row in curve(name, shift=0.01 * i, **changes)]


def before(rows: list[Row]) -> list[Row]:
    """With differences before recovery: those after it, twice."""
    return [
        changed(
            row,
            delta_before_recovery_nats=2 * row.columns()["delta_nats"],
            delta_before_recovery_low=2 * row.columns()["delta_low"],
            delta_before_recovery_high=2 * row.columns()["delta_high"],
        )
        for row in rows
        if row.columns()["delta_nats"] is not None
    ]


def drawn(rows: list[Row], **options: Any) -> dict[str, Any]:
    return grid(summed(rows, **options)).to_dict()


def cells_of(figure: dict[str, Any], panel: int) -> list[dict[str, Any]]:
    """Controls, then line by line, cut by cut."""
    chart = {"data": figure.get("data"), **figure["hconcat"][panel]}
    boxes = [layer for layer in layers_of(chart) if layer["mark"]["type"] == "rect"]
    return [cell for layer in boxes for cell in figure["datasets"][layer["data"]["name"]]]


def words(figure: dict[str, Any], panel: int) -> list[str]:
    return [cell["text"] for cell in cells_of(figure, panel)]


def across(figure: dict[str, Any]) -> dict[str, Any]:
    """The axis of what was asked for."""
    return channel(figure["hconcat"][0]["vconcat"][-1], "rect", "x")


def test_a_cell_for_every_line_and_cut_and_one_value_a_control() -> None:
    rows = [*controls(), *ranked("swe", "magnitude")]
    figure = drawn([*controls(), *before(rows[4:])])
    assert [panel["title"]["text"] for panel in figure["hconcat"]] == [
        "after recovery",
        "before recovery",
    ]
    for panel in (0, 1):  # the names stand on the left only, so that rows must be the same
        assert list(dict.fromkeys(cell["row"] for cell in cells_of(figure, panel))) == [
            *("dense best", "dense recovered", "dense averaged", "swe", "magnitude"),
        ]
    columns = ["0.1 ratio", "0.3 ratio", "0.6 ratio", "0.8 ratio", "0.9 ratio"]
    assert across(figure)["sort"] == columns
    assert words(figure, 0) == [
        *("−0.230", "−0.020", "−0.260"),
        *("−0.010", "−0.070", "−0.160", "+0.120", "+0.830"),
        *("+0.000", "−0.060", "−0.150", "+0.130", "+0.840"),
    ]
    # Dense recovered was dense before it was: it has no value there.
    assert words(figure, 1)[:3] == ["−0.230", "", "−0.260"]
    assert (words(figure, 1)[7], words(figure, 1)[-1]) == ("+1.660", "+1.680")
    assert [cell["column"] for cell in cells_of(figure, 0)] == [*[None] * 3, *columns, *columns]
    bars = figure["hconcat"][0]["vconcat"][0]
    assert all("x" not in layer["encoding"] for layer in bars["layer"][:2])  # over all columns


def test_a_mark_where_the_interval_excludes_nothing_and_bold_where_it_is_best() -> None:
    rows = [
        pruned(0.5, 2.07, criterion="swe", delta_low=-0.001, delta_high=0.001),
        pruned(0.5, 2.0, criterion="magnitude"),
        pruned(0.6, 2.0, criterion="snip", delta_low=None, delta_high=None),
    ]
    cells = cells_of(drawn([*controls(), *rows]), 0)[3:]
    assert [(cell["row"], cell["bold"], cell["certain"]) for cell in cells] == [
        *(("magnitude", True, True), ("swe", False, False), ("snip", True, False)),
    ]


def test_colours_are_on_a_symmetric_log_scale_that_clips_nothing() -> None:
    figure = drawn([*controls(), *curve()])
    colour = channel(figure["hconcat"][0]["vconcat"][0], "rect", "color")
    assert colour["scale"]["type"] == "symlog"
    assert colour["scale"]["domain"] == pytest.approx([-0.83, 0.83])
    assert colour["legend"]["values"] == [-0.1, 0, 0.1]
    drawn_as = {cell["text"]: cell["value"] for cell in cells_of(figure, 0)}
    assert drawn_as["+0.830"] == pytest.approx(0.83)
    # White on what is dark: 0.83 and 0.26 of 0.83, in logarithms; 0.12 is not.
    dark = {cell["text"]: cell["dark"] for cell in cells_of(figure, 0)}
    assert (dark["+0.830"], dark["−0.260"], dark["+0.120"]) == (True, True, False)
    exploded = [pruned(0.5, 2.02), pruned(0.9, float("inf"))]
    colour = channel(drawn(exploded)["hconcat"][0]["vconcat"][0], "rect", "color")
    assert colour["scale"]["domain"] == pytest.approx([-0.05, 0.05])


def test_rows_are_sorted_by_mean_rank_and_one_checkpoint_is_one_row() -> None:
    dense, best, *others = controls()
    same = changed(best, loss_nats=2.07, delta_nats=0.0)
    exploding = [*curve("best", shift=-0.1)[:-1], pruned(0.9, 99.0, criterion="best")]
    figure = drawn([dense, same, *others, *ranked("swe", "magnitude"), *exploding])
    assert list(dict.fromkeys(cell["row"] for cell in cells_of(figure, 0))) == [
        *("dense, dense best: same checkpoint", "dense recovered", "dense averaged"),
        *("best", "swe", "magnitude"),
    ]
    assert "+96.9" in words(figure, 0)


def test_failures_are_shown_and_cuts_that_were_not_made_are_left_empty() -> None:
    failed = pruned(0.9, 1.0, criterion="swe", status="failed", error="lost")
    figure = drawn([*curve()[:-1], failed, pruned(0.5, 2.0, criterion="snip")])
    assert words(figure, 0).count("×") == 1
    assert len(words(figure, 0)) == 5 + 1
    assert "× failed" in " ".join(title(figure))


def test_cuts_that_were_compared_with_nothing_leave_an_empty_grid(tmp_path: Path) -> None:
    alone = [pruned(ratio, 2.0, delta_nats=None, delta_low=None) for ratio in (0.1, 0.5)]
    figure = grid(summed(alone))
    assert words(figure.to_dict(), 0) == ["", ""]
    assert all(path.is_file() for path in write_figure(figure, tmp_path, "grid"))


def test_ratios_then_rates_then_what_finds_its_own() -> None:
    rows = [*curve(), pruned(None, 2.0, rate=1.5), pruned(None, 2.0, criterion="bezier")]
    found = columns_of(summed(rows))
    assert found == [*(f"{ratio} ratio" for ratio in CURVE), "1.5 rate", "own own sparsity"]
    axis = across(drawn(rows))
    assert axis["sort"] == found
    assert axis["axis"]["labelExpr"] == "split(datum.value, ' ')[0]"
    assert axis["title"] == "ratio | rate | own sparsity"


def test_numbers_give_way_where_there_are_too_many_cuts(tmp_path: Path) -> None:
    rows = [pruned(place / 100, 2.0) for place in range(1, 61)]
    rows.append(pruned(0.7, 1.0, status="failed", error="lost"))
    figure = drawn([*controls(), *rows])
    assert [word for word in words(figure, 0) if word] == ["−0.230", "−0.020", "−0.260", "×"]
    assert figure["hconcat"][0]["vconcat"][0]["width"] < 600
    paths = write_figure(grid(summed([*controls(), *rows])), tmp_path, "grid")
    assert all(path.is_file() for path in paths)


def test_a_foreign_allocation_is_said() -> None:
    figure = drawn(curve("wanda"), published={"wanda": "row"})
    assert title(figure)[-1] == "wanda ran with allocation global; published with row."


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    rows = [*controls(), *ranked(*NAMES)]
    first = write_figure(grid(summed(rows)), tmp_path / "a", "grid")
    second = write_figure(grid(summed(rows[::-1])), tmp_path / "b", "grid")
    assert [path.read_bytes() for path in first[:2]] == [path.read_bytes() for path in second[:2]]


# Which lines a curve has room for


def kept(rows: list[Row]) -> dict[str, list[str]]:
    shown = shown_lines(summed(rows), LOSS)
    return {panel: [line.label for line in lines] for panel, lines in shown.items()}


def test_up_to_twelve_criteria_have_panels_the_best_first() -> None:
    names = [*NAMES[::-1], "a", "b", "c", "d"]
    assert list(kept(ranked(*names))) == names


def test_of_more_criteria_those_everyone_asks_for_and_the_best_others() -> None:
    rows = ranked(*"abcdefghijk", *NAMES[:3])
    assert list(kept(rows)) == [*"abcdefghi", *NAMES[:3]]


def test_of_each_criterion_its_best_lines() -> None:
    rows = [row for i in range(5) for row in curve(shift=i / 100, axes={"every": i})]
    assert kept(rows) == {"swe": [f"swe (every {i})" for i in range(4)]}
    many = [*rows, *ranked(*"abcdefghijk", axes={"every": 0})]
    assert kept(many)["swe"] == ["swe (every 0)", "swe (every 1)"]


def test_an_explosion_at_the_last_cut_is_one_rank_only() -> None:
    exploding = [*curve("best", shift=-0.1)[:-1], pruned(0.9, 99.0, criterion="best")]
    assert [*kept([*ranked(*NAMES), *exploding])][:3] == ["swe", "best", "magnitude"]


def test_what_finds_its_own_sparsity_has_no_rank() -> None:
    own = pruned(None, 1.0, criterion="bezier", sparsity=0.2)
    other = pruned(None, 2.0, criterion="own", sparsity=0.9)
    assert [*kept([*ranked("swe", "magnitude"), own, other])][:2] == ["swe", "magnitude"]


def test_a_module_draws_the_best_line_of_each_criterion() -> None:
    names = (*"abcdef", "swe", "magnitude", "random")
    rows = [
        row
        for i, name in enumerate(names)
        for roles in ("vision", "all")
        for row in asked({0.5: 0.8 - i / 100}, roles=roles, criterion=name)
    ]
    summary = summed([*asked_controls(), *rows])
    for lines in shown_lines(summary, ACCURACY).values():
        assert [line.criterion for line in lines] == [*"abcde", "swe", "magnitude", "random"]
    said = title(figure_of(summary, ACCURACY).to_dict())
    assert " ".join(said[2:]).endswith("In grid.png only: f.")


def test_the_figure_says_which_lines_it_leaves_out_and_where_they_are() -> None:
    rows = [row for i in range(5) for row in curve(shift=i / 100, axes={"every": i})]
    rows = [*controls(), *rows, *ranked(*"abcdefghijklm", axes={"every": 0})]
    said = title(figure_of(summed(rows), LOSS, elsewhere="grid-kjv.png").to_dict())
    assert " ".join(said[3:]) == (
        "13 of 18 lines: swe and the best others, by mean rank over all cuts. "
        "In grid-kjv.png only: l, m, 3 further settings of these criteria."
    )
    assert len(title(figure_of(summed([*controls(), *curve()]), LOSS).to_dict())) == 3
