"""Many lines: the grid that shows them all, and the few that curves are drawn of."""

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from swe_cli.records import Row
from swe_cli.reporting.aggregate import summarise
from swe_cli.reporting.curve_figure import curve_figure
from swe_cli.reporting.figures import write_figure
from swe_cli.reporting.grid_cells import colour_limit, columns_of
from swe_cli.reporting.grid_figure import grid_figure
from swe_cli.reporting.loss_figure import loss_figure
from swe_cli.reporting.quantity import ACCURACY, LOSS
from swe_cli.reporting.selection import left_out, selected

from .toys import CURVE, asked, asked_controls, controls, curve, pruned

NAMES = ("swe", "magnitude", "random", "fisher", "movement", "snip", "stability", "wanda")


def ranked(*names: str, **changes: object) -> list[Row]:
    """One line a name, each worse than the one before."""
    return [row for i, name in enumerate(names) for row in curve(name, shift=0.01 * i, **changes)]


def before(rows: list[Row]) -> list[Row]:
    """With differences before recovery: those after it, twice."""
    return [
        replace(
            row,
            delta_before_recovery_nats=2 * row.delta_nats,
            delta_before_recovery_low=2 * row.delta_low,
            delta_before_recovery_high=2 * row.delta_high,
        )
        for row in rows
        if row.delta_nats is not None
    ]


def drawn(rows: list[Row]) -> Figure:
    return grid_figure(summarise(rows))


def words(figure: Figure, panel: int) -> list[str]:
    return [text.get_text() for text in figure.axes[panel].texts]


def test_a_cell_for_every_line_and_cut_and_one_value_a_control() -> None:
    rows = [*controls(), *ranked("swe", "magnitude")]
    figure = drawn([*controls(), *before(rows[4:])])
    after, earlier = figure.axes[:2]
    assert [axes.get_title() for axes in (after, earlier)] == ["after recovery", "before recovery"]
    names = [label.get_text() for label in after.get_yticklabels()]
    assert names == ["dense best", "dense recovered", "dense averaged", "magnitude", "swe"]
    ticks = [label.get_text() for label in after.get_xticklabels()]
    assert ticks == ["0.1", "0.3", "0.6", "0.8", "0.9"]
    assert len(words(figure, 0)) == 3 + 2 * 5
    assert words(figure, 0)[:3] == ["-.230", "-.020", "-.260"]
    # Dense recovered was dense before it was: it has no value there.
    assert words(figure, 1)[:2] == ["-.230", "-.260"]
    # By column, magnitude above swe: 2.07 at 0.1 against 2.07, then 2.06; at last 2.91 and 2.9.
    assert words(figure, 0)[3:5] == [".000", "-.010"]
    assert words(figure, 0)[-2:] == ["+.840", "+.830"]
    assert words(figure, 1)[-2:] == ["+1.68", "+1.66"]


def test_a_mark_where_the_interval_excludes_nothing_and_bold_where_it_is_best() -> None:
    rows = [
        pruned(0.5, 2.07, criterion="swe", delta_low=-0.001, delta_high=0.001),
        pruned(0.5, 2.0, criterion="magnitude"),
    ]
    (axes,) = drawn([*controls(), *rows]).axes[:1]
    boxes, corners = (c for c in axes.collections if isinstance(c, PolyCollection))
    assert len(boxes.get_paths()) == 3 + 2
    assert len(corners.get_paths()) == 3 + 1
    weights = [text.get_fontweight() for text in axes.texts[3:]]
    assert weights == ["bold", "normal"]


def test_colours_end_beyond_the_largest_gain() -> None:
    # The best control gains 0.26; what is 0.83 worse does not stretch the colours.
    assert colour_limit(summarise([*controls(), *curve()])) == 0.5
    assert colour_limit(summarise([pruned(0.5, 2.02), pruned(0.9, 5.0)])) == pytest.approx(0.05)
    # Nothing gains: half of all differences, 0.1, 0.2 and 3, keep their colour.
    rows = [pruned(r, 2.07 + delta) for r, delta in ((0.1, 0.1), (0.5, 0.2), (0.9, 3.0))]
    assert colour_limit(summarise(rows)) == 0.2
    assert colour_limit(summarise([pruned(0.5, 2.07)])) == 0.02
    figure = drawn([*controls(), *curve()])
    said = " ".join(figure.axes[-1].get_xlabel().split())
    assert "colours are clipped at ±0.5" in said
    assert "clipped" not in drawn([pruned(0.5, 2.02)]).axes[-1].get_xlabel()


def test_failures_are_shown_and_cuts_that_were_not_made_are_left_empty() -> None:
    failed = pruned(0.9, 1.0, criterion="swe", status="failed", error="lost")
    figure = drawn([*curve()[:-1], failed, pruned(0.5, 2.0, criterion="snip")])
    assert words(figure, 0).count("×") == 1
    assert len(words(figure, 0)) == 5 + 1
    assert "× failed" in figure.get_suptitle()


def test_ratios_then_rates_then_what_finds_its_own() -> None:
    rows = [*curve(), pruned(None, 2.0, rate=1.5), pruned(None, 2.0, criterion="bezier")]
    found = columns_of(summarise(rows))
    assert found == [*(("ratio", r) for r in CURVE), ("rate", 1.5), ("own sparsity", 0.0)]
    figure = drawn(rows)
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()][-2:] == ["1.5", "own"]
    assert figure.axes[0].get_xlabel() == "ratio | rate | own sparsity"


def test_numbers_give_way_where_there_are_too_many_cuts(tmp_path: Path) -> None:
    rows = [pruned(place / 100, 2.0) for place in range(1, 61)]
    figure = drawn([*controls(), *rows])
    assert len(words(figure, 0)) == 3
    assert figure.get_size_inches()[0] < 9
    assert all(path.is_file() for path in write_figure(figure, tmp_path, "grid"))


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    rows = [*controls(), *ranked(*NAMES)]
    first = write_figure(drawn(rows), tmp_path / "a", "grid")
    second = write_figure(drawn(rows[::-1]), tmp_path / "b", "grid")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


# Curves


def kept(rows: list[Row]) -> list[str]:
    return [line.label for line in selected(summarise(rows), LOSS).lines]


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
    summary = summarise([*asked_controls(), *rows])
    found = selected(summary, ACCURACY)
    assert [line.criterion for line in found.lines] == sorted(names[:4] * 2)
    assert left_out(summary, found) == "taylor"
    twelve = [row for row in rows if row.criterion in names[:3]]
    assert selected(summarise(twelve), ACCURACY).lines == summarise(twelve).lines


def test_the_figure_says_which_lines_it_leaves_out_and_where_they_are() -> None:
    rows = [*controls(), *ranked(*NAMES, allocation="uniform"), *curve("swe", shift=0.5)]
    figure = loss_figure(summarise(rows), elsewhere="grid-2.png")
    said = " ".join(figure.get_supxlabel().split())
    assert said == (
        "6 of 9 lines: swe, magnitude, random and the best others, by mean rank over all cuts. "
        "In grid-2.png only: stability, swe (allocation global), wanda."
    )
    assert curve_figure(summarise([*controls(), *curve()]), LOSS).get_supxlabel() == ""


def test_a_difference_in_five_signs() -> None:
    from swe_cli.reporting.text import short

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
