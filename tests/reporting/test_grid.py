"""Many lines: the grid that shows them all, and the few that curves are drawn of."""

from pathlib import Path
from typing import Any

import pytest

from swe_cli.records import Row
from swe_cli.report.figures import curve as figure_of
from swe_cli.report.figures import selected, write_figure
from swe_cli.report.grid import columns_of, grid
from swe_cli.report.quantities import ACCURACY, LOSS
from swe_cli.report.text import short

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
            *("dense best", "dense recovered", "dense averaged", "magnitude", "swe"),
        ]
    columns = ["0.1 ratio", "0.3 ratio", "0.6 ratio", "0.8 ratio", "0.9 ratio"]
    assert across(figure)["sort"] == columns
    # Magnitude above swe: 2.07 at 0.1 against 2.07, then 2.06; at last 2.91 and 2.9.
    assert words(figure, 0) == [
        *("-.230", "-.020", "-.260"),
        *(".000", "-.060", "-.150", "+.130", "+.840"),
        *("-.010", "-.070", "-.160", "+.120", "+.830"),
    ]
    # Dense recovered was dense before it was: it has no value there.
    assert words(figure, 1)[:3] == ["-.230", "", "-.260"]
    assert (words(figure, 1)[7], words(figure, 1)[-1]) == ("+1.68", "+1.66")
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
    assert [(cell["bold"], cell["certain"]) for cell in cells] == [
        *((True, True), (True, False), (False, False)),
    ]


def bar(rows: list[Row]) -> tuple[float, str]:
    """Where the bar of colours ends, and what it says."""
    colour = channel(drawn(rows)["hconcat"][0]["vconcat"][0], "rect", "color")
    return colour["scale"]["domain"][1], colour["legend"]["title"]


def test_colours_end_beyond_the_largest_gain() -> None:
    # The best control gains 0.26; what is 0.83 worse does not stretch the colours.
    end, words = bar([*controls(), *curve()])
    assert end == 0.5
    assert "colours are clipped at ±0.5" in words
    assert bar([pruned(0.5, 2.02), pruned(0.9, 5.0)])[0] == pytest.approx(0.05)
    # Nothing gains: half of all differences, 0.1, 0.2 and 3, keep their colour.
    rows = [pruned(r, 2.07 + delta) for r, delta in ((0.1, 0.1), (0.5, 0.2), (0.9, 3.0))]
    assert bar(rows)[0] == 0.2
    assert bar([pruned(0.5, 2.07)])[0] == 0.02
    assert "clipped" not in bar([pruned(0.5, 2.02)])[1]


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
    assert [word for word in words(figure, 0) if word] == ["-.230", "-.020", "-.260", "×"]
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
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


# Curves


def kept(rows: list[Row]) -> list[str]:
    return [line.label for line in selected(summed(rows), LOSS).lines]


def test_up_to_eight_lines_are_all_drawn() -> None:
    assert len(kept(ranked(*NAMES))) == 8


def test_of_many_lines_those_everyone_asks_for_and_the_best_others() -> None:
    rows = ranked("fisher", "snip", "wanda", "taylor", "stability", "movement")
    rows += ranked("random", "swe", "magnitude", axes={})
    assert kept(rows) == ["fisher", "magnitude", "random", "snip", "swe", "wanda"]


def test_of_each_criterion_its_best_line() -> None:
    rows = [*ranked(*NAMES, allocation="uniform"), *ranked(*NAMES[::-1], allocation="global")]
    assert kept(rows) == [
        "magnitude (allocation uniform)",
        "random (allocation uniform)",
        "snip (allocation global)",
        "stability (allocation global)",
        "swe (allocation uniform)",
        "wanda (allocation global)",
    ]


def test_an_explosion_at_the_last_cut_is_one_rank_only() -> None:
    rows = ranked(*NAMES, "taylor")
    exploding = [*curve("best", shift=-0.1)[:-1], pruned(0.9, 99.0, criterion="best")]
    assert "best" in kept([*rows, *exploding])


def test_lines_of_several_roles_stay_together() -> None:
    names = ("swe", "magnitude", "random", "snip", "taylor")
    rows = [
        row
        for i, name in enumerate(names)
        for roles in ("vision", "all")
        for row in asked({0.5: 0.8 - i / 100}, roles=roles, criterion=name)
    ]
    summary = summed([*asked_controls(), *rows])
    found = selected(summary, ACCURACY)
    assert [line.criterion for line in found.lines] == sorted(names[:4] * 2)
    said = title(figure_of(summary, ACCURACY).to_dict())
    assert " ".join(said[2:]).endswith("In grid.png only: taylor.")
    twelve = [row for row in rows if row.settings.get("criterion") in names[:3]]
    assert len(selected(summed(twelve), ACCURACY).lines) == len(summed(twelve).lines) == 6


def test_the_figure_says_which_lines_it_leaves_out_and_where_they_are() -> None:
    rows = [*controls(), *ranked(*NAMES, allocation="uniform"), *curve("swe", shift=0.5)]
    said = title(figure_of(summed(rows), LOSS, elsewhere="grid-2.png").to_dict())
    assert " ".join(said[2:]) == (
        "6 of 9 lines: swe, magnitude, random and the best others, by mean rank over all cuts. "
        "In grid-2.png only: stability, swe (allocation global), wanda."
    )
    assert len(title(figure_of(summed([*controls(), *curve()]), LOSS).to_dict())) == 2


def test_a_difference_in_five_signs() -> None:
    values = (0.0004, -0.0004, 0.0213, -0.9994, -0.9996, 1.234, -9.996, 12.34, 99.96, 12345.0)
    assert [short(value) for value in values] == [
        ".000",
        ".000",
        "+.021",
        "-.999",
        "-1.00",
        "+1.23",
        "-10.0",
        "+12.3",
        "+100",
        "+1e4",
    ]
    assert short(float("inf")) == "+inf"
