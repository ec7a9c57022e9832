import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swe_cli.commands.report import endings
from swe_cli.errors import SweError
from swe_cli.records import Row
from swe_cli.report.figures import curve as figure_of
from swe_cli.report.figures import (
    panels,
    spelt,
    squash,
    stretch,
    ticks,
    titled,
    weight_figure,
    weight_lives,
    write_figure,
)
from swe_cli.report.look import colour_of
from swe_cli.report.quantities import ACCURACY, LOSS

from .toys import (
    asked,
    asked_controls,
    changed,
    channel,
    controls,
    curve,
    data_of,
    marks,
    names,
    pruned,
    summed,
    title,
)

AFTER = "after recovery"


def drawn(rows: list[Row], **options: Any) -> dict[str, Any]:
    return figure_of(summed(rows, **options), LOSS).to_dict()


def heads(figure: dict[str, Any]) -> list[str]:
    return [panel["description"] for panel in figure["concat"]]


def colour(panel: dict[str, Any]) -> Any:
    """Of its line after recovery."""
    (line,) = [
        o for o in panel["layer"] if o["encoding"].get("strokeWidth", {}).get("field") == "width"
    ]
    return line["encoding"]["color"]


def test_every_criterion_has_a_panel_and_every_line_and_control_a_name() -> None:
    rows = [*controls(), *curve(axes={"every": 1}), *curve(axes={"every": 10}, shift=0.1)]
    figure = drawn([*rows, *curve("magnitude", axes={"every": 1}, shift=0.05)])
    assert heads(figure) == ["swe", "magnitude"]
    assert [colour(panel)["value"] for panel in figure["concat"]] == [
        *(colour_of("swe"), colour_of("magnitude")),
    ]
    assert names(figure) == [
        ["every 1", "every 10"],
        # Controls are named in the last column only, each where its line is.
        [
            "dense averaged −0.260",
            "dense best −0.230",
            "dense recovered −0.020",
            "dense",
            "every 1",
        ],
    ]
    cuts = data_of(figure, "line")
    assert len(cuts) == 3 * 5 + 2 * 5  # before recovery the best line of a criterion only
    one, other = ([c for c in cuts if c["label"] == f"swe (every {n})"] for n in (1, 10))
    assert [cut["x"] for cut in one if cut["stage"] == AFTER] == [10, 30, 60, 80, 90]
    np.testing.assert_allclose([c["value"] for c in one][:4], [-0.01, -0.07, -0.16, 0.12])
    assert (one[0]["low"], one[0]["high"]) == pytest.approx((-0.015, -0.005))
    assert other[0]["low"] is None
    # SWE is the strongest, in its own panel and behind the others.
    assert {cut["width"] for cut in one} == {2.8}
    assert max(cut["width"] for cut in cuts if "magnitude" in cut["label"]) < 2.8
    assert max(cut["behind"] or 0 for cut in cuts) == one[0]["behind"]


def test_one_symmetric_log_axis_for_all_panels() -> None:
    figure = drawn([*controls(), *curve(), *curve("random", shift=2.0)])
    scales = [channel(panel, "line", "y")["scale"] for panel in figure["concat"]]
    assert scales[0] == scales[1]
    assert (scales[0]["type"], scales[0]["constant"]) == ("symlog", 0.01)
    low, high = scales[0]["domain"]
    every = [cut["value"] for cut in data_of(figure, "line")]
    assert low < -0.26 < max(every) < high
    axes = [channel(panel, "line", "y")["axis"] for panel in figure["concat"]]
    assert axes[0]["title"] == "against dense (nats per token)"
    assert axes[1]["title"] is None


def test_ticks_are_powers_of_ten_then_threes_where_there_is_room() -> None:
    assert ticks(-0.2, 9.0, 0.01, 6) == [-0.1, 0, 0.1, 1]
    assert ticks(-0.2, 9.0, 0.01, 14) == pytest.approx([-0.1, -0.03, 0, 0.03, 0.1, 0.3, 1, 3])
    places = squash(ticks(-0.2, 9.0, 0.01, 14), 0.01)
    assert np.diff(places).min() >= np.ptp(squash([-0.2, 9.0], 0.01)) / 14
    np.testing.assert_allclose(stretch(places, 0.01), ticks(-0.2, 9.0, 0.01, 14), atol=1e-12)


def test_names_stand_apart_inside_the_panel() -> None:
    close = [changed(row, delta_nats=i / 1e4) for i, row in enumerate(controls())]
    summary = summed([*close, pruned(0.5, 2.07), pruned(0.9, 2.0701)])
    (panel,) = panels(summary, LOSS, width=300)
    figure = panel.to_dict()
    place = next(o for o in figure["layer"] if o["mark"].get("baseline") == "middle")
    rows = figure["datasets"][place["data"]["name"]]
    scale = place["encoding"]["y"]["scale"]
    ends = squash(scale["domain"], scale["constant"])
    pixels = (squash([row["place"] for row in rows], scale["constant"]) - ends[0]) / np.ptp(ends)
    pixels *= figure["height"]
    assert rows[0]["name"] == "dense"
    assert np.diff(pixels).min() >= 11.99
    assert 0 <= pixels.min() < pixels.max() <= figure["height"]


def test_dashes_are_drawn_only_where_there_was_a_recovery() -> None:
    rows = [changed(row, loss_before_recovery_nats=row.columns()["loss_nats"]) for row in curve()]
    figure = drawn([*controls(), *rows])
    assert {cut["stage"] for cut in data_of(figure, "line")} == {AFTER}
    assert "before recovery" not in " ".join(title(figure))
    assert "dashed: before recovery" in title(drawn([*controls(), *curve()]))[2]


def test_equal_controls_are_said_to_be_one_checkpoint() -> None:
    dense, best, *others = controls()
    best = changed(best, loss_nats=2.07, delta_nats=0.0)
    assert names(drawn([dense, best, *others, *curve()]))[-1] == [
        *("dense averaged −0.260", "dense recovered −0.020", "dense, dense best: same checkpoint"),
    ]


def test_a_line_of_two_names_is_in_the_panels_of_both() -> None:
    rows = [*(same := curve("swe", base="averaged")), *curve("swe", shift=0.1)]
    for name in ("magnitude", "twin"):  # who has no line of its own has no panel
        rows += [
            changed(row, criterion=name, config_hash=f"{name} {row.config_hash}") for row in same
        ]
    figure = drawn([*rows, *curve("magnitude", shift=0.2)])
    assert heads(figure) == ["swe", "magnitude"]
    own = [["= magnitude = twin, averaged", "final"], ["= swe = twin, averaged", "final"]]
    assert names(figure) == own
    shared = [c for c in data_of(figure, "line") if c["label"].startswith("swe = magnitude")]
    assert {cut["colour"] for cut in shared} == {colour_of("swe")}


def test_modules_have_panels_and_criteria_their_colours() -> None:
    rows = [
        row
        for role, criterion in itertools.product(("vision", "all"), ("swe", "magnitude"))
        for row in asked({0.3: 0.9, 0.6: 0.8}, roles=role, criterion=criterion, mae=1.0)
    ]
    figure = figure_of(summed([*asked_controls(mae=1.0), *rows]), ACCURACY).to_dict()
    assert sorted(heads(figure)) == ["all", "vision"]
    assert {"swe", "magnitude"} < {*names(figure)[1]}
    assert names(figure)[1][:2] == [
        "always the commonest answer −52.8",
        "dense, images shuffled −29.0",
    ]
    assert colour(figure["concat"][0]) == {"field": "colour", "type": "nominal", "scale": None}
    cuts = data_of(figure, "line")
    assert {cut["colour"] for cut in cuts} == {colour_of("swe"), colour_of("magnitude")}
    # In points: 90 % is dense, 80 % ten below.
    assert {round(cut["value"], 6) for cut in cuts if cut["stage"] == AFTER} == {0, -10}
    assert channel(figure, "line", "y")["axis"]["title"] == "against dense (points)"
    assert "above 0 is better" in title(figure)[2]


def test_the_title_says_what_the_band_is_and_whose_allocation_is_not_its_own() -> None:
    assert title(drawn([*controls(), *curve()])) == [
        "gpt_nano on kjv: loss against dense (2.0700)",
        "1 seed; band: 95% interval over test windows of this training only",
        "dashed: before recovery; below 0 is better",
    ]
    both = drawn([*controls(), *controls(1), *curve(), *curve(seed=1)])
    assert title(both)[1].startswith("2 seeds; band: 95% t interval over seeds")
    foreign = drawn([*controls(), *curve("wanda")], published={"wanda": "row"})
    assert title(foreign)[3] == "wanda ran with allocation global; published with row."


def test_rates_are_drawn_at_the_sparsity_they_achieved() -> None:
    figure = drawn([*controls(), pruned(None, 1.9, rate=1.575, sparsity=0.6012)])
    assert channel(figure, "line", "x")["axis"]["title"] == "sparsity (%)"
    assert {cut["x"] for cut in data_of(figure, "line")} == {60.12}
    assert "ring: before recovery" in title(figure)[2]
    assert ("area" in marks(figure), marks(figure).count("rule")) == (False, 3)


def test_cuts_without_controls_are_drawn(tmp_path: Path) -> None:
    figure = figure_of(summed(curve()), LOSS)
    write_figure(figure, tmp_path, "loss")
    assert "Infinity" not in (svg := (tmp_path / "loss.svg").read_text())
    assert "e+308" not in svg
    assert names(figure.to_dict()) == [[]]


def test_an_infinite_loss_leaves_the_rest_drawn_and_is_counted(tmp_path: Path) -> None:
    infinite = pruned(0.95, float("inf"), loss_before_recovery_nats=float("inf"))
    failed = pruned(0.97, 1.0, status="failed", error="lost")
    figure = figure_of(summed([*controls(), *curve(), infinite, failed]), LOSS)
    write_figure(figure, tmp_path, "loss")
    assert {cut["x"] for cut in data_of(figure.to_dict(), "line")} == {10, 30, 60, 80, 90}
    assert title(figure.to_dict())[3] == "2 cuts failed or infinite, not drawn."
    alone = pruned(0.5, 2.0, delta_nats=None)
    for rows in ([*controls(), infinite], controls(), [alone]):
        with pytest.raises(
            SweError, match="no pruned row has a finite difference to dense in loss"
        ):
            drawn(rows)


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    rows = [*controls(), *curve(), *curve("magnitude", shift=0.1)]

    def written(rows: list[Row], name: str) -> list[Path]:
        return write_figure(figure_of(summed(rows), LOSS), tmp_path / name, "loss")

    first, second = written(rows, "a"), written(rows[::-1], "b")
    assert [path.name for path in first] == ["loss.png", "loss.svg", "loss.pdf"]
    for one, other in zip(first, second, strict=True):
        assert one.stat().st_size > 5000
        assert one.suffix == ".pdf" or one.read_bytes() == other.read_bytes()
    assert first[2].read_bytes().startswith(b"%PDF")
    other = written([*rows, pruned(0.2, 2.0)], "c")
    assert other[1].read_bytes() != first[1].read_bytes()


def test_figures_of_several_protocols_are_named_by_their_data() -> None:
    assert endings(["easy_vqa", "digit_sums"]) == ["-easy_vqa", "-digit_sums"]
    assert endings(["kjv", "sums", "kjv"]) == ["-kjv-1", "-sums", "-kjv-2"]
    assert endings(["kjv"]) == [""]


def test_a_chart_has_no_colour_of_the_page_until_it_is_printed() -> None:
    (panel,) = panels(summed([*controls(), *curve()]), LOSS)
    assert "background" not in panel.to_dict()["config"]
    assert titled(panel, "loss", [], 100).to_dict()["config"]["background"] == "white"
    assert {"words", "control"} == {*titled(panel, "", [], 9).to_dict()["config"]["style"]}
    assert marks(panel.to_dict()).count("rule") == 2  # controls, and what points to their names


def test_differences_have_true_minus_signs_and_equal_digits() -> None:
    values = (0.0004, -0.0004, 0.0213, -0.9996, 1.234, -9.9994, 12.34, -123.4, 12345.0)
    assert [spelt(value) for value in values] == [
        *("+0.000", "+0.000", "+0.021", "−1.000", "+1.234", "−9.999", "+12.3", "−123", "+1.23e4"),
    ]
    assert [spelt(value, 1) for value in (-0.04, -6.82, -58.31)] == ["+0.0", "−6.8", "−58.3"]
    assert spelt(float("inf")) == "+inf"


def test_weights_that_two_criteria_disagree_on_equally_many_either_way(tmp_path: Path) -> None:
    values = np.arange(18.0).reshape(3, 6)
    swe = np.array([True, False, True, True, False, True])
    magnitude = np.array([True, True, False, False, False, False])
    lives = weight_lives([0, 10, 20], values, swe, magnitude)
    assert list(lives.columns) == ["step", "value", "weight", "group"]
    assert len(lives) == 3 * 2
    by = dict(list(lives.groupby("group")))
    assert by["kept by magnitude, cut by swe"]["value"].tolist() == values[:, 1].tolist()
    assert by["kept by swe, cut by magnitude"]["value"].tolist() == values[:, 2].tolist()
    assert by["kept by swe, cut by magnitude"]["step"].tolist() == [0, 10, 20]
    figure = weight_figure(lives)
    assert all(path.stat().st_size > 1000 for path in write_figure(figure, tmp_path, "w"))


def test_at_most_sixty_weights_are_taken_from_all_of_the_sample() -> None:
    swe = np.arange(400) % 2 == 0
    lives = weight_lives([0], np.zeros((1, 400)), swe, ~swe)
    assert lives["group"].value_counts().tolist() == [60, 60]
    assert lives["weight"].agg(["min", "max"]).tolist() == [0, 399]
    assert lives["weight"].is_unique


def test_weights_that_nobody_disagrees_on_and_shapes_that_disagree() -> None:
    everything = np.ones(2, dtype=bool)
    assert weight_lives([0, 1], np.zeros((2, 2)), everything, everything).empty
    with pytest.raises(ValueError, match="are not"):
        weight_lives([0], np.zeros((2, 2)), everything, everything)
