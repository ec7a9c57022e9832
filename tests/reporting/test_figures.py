from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from swe_cli.errors import SweError
from swe_cli.records import Row
from swe_cli.reporting.aggregate import summarise
from swe_cli.reporting.figures import write_figure
from swe_cli.reporting.loss_figure import loss_figure
from swe_cli.reporting.weight_figure import weight_evolution_figure

from .toys import controls, curve, pruned


def drawn(rows: list[Row]) -> Figure:
    return loss_figure(summarise(rows))


def labels(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts() if text.get_text()]


def test_every_line_and_control_is_drawn_and_named() -> None:
    rows = [*controls(), *curve(axes={"every": 1}), *curve(axes={"every": 10}, shift=0.1)]
    figure = drawn(rows)
    assert labels(figure) == [
        "swe (every 1)",
        "swe (every 10)",
        "after recovery",
        "before recovery",
        "95% interval, paired",
        "dense 2.0700",
        "dense best 1.8400",
        "dense recovered 2.0500",
        "dense averaged 1.8100",
    ]
    upper, lower = figure.axes
    # Four controls, and each line before and after recovery; the last is the stroke of the break.
    assert [len(axes.lines) for axes in (upper, lower)] == [4 + 2 * 2 + 1] * 2
    assert len(lower.collections) == 2
    np.testing.assert_allclose(lower.lines[5].get_ydata(), [2.06, 2.0, 1.91, 2.19, 2.9])
    np.testing.assert_allclose(lower.lines[5].get_xdata(), [10, 30, 60, 80, 90])


def test_the_readable_panel_keeps_to_the_controls_and_the_other_takes_the_rest() -> None:
    upper, lower = drawn([*controls(), *curve()]).axes
    low, high = lower.get_ylim()
    assert 1.7 < low < 1.81
    assert 2.19 < high < 2.4
    assert upper.get_ylim()[0] == high
    assert upper.get_ylim()[1] > 5.8
    assert upper.get_yscale() == "log"


def test_one_panel_is_enough_where_nothing_explodes() -> None:
    rows = [pruned(r, 2.0, loss_before_recovery_nats=None) for r in (0.1, 0.2)]
    figure = drawn([*controls(), *rows])
    assert len(figure.axes) == 1
    assert "before recovery" not in labels(figure)


def test_the_title_says_what_the_band_is() -> None:
    assert drawn([*controls(), *curve()]).get_suptitle() == (
        "gpt_nano on kjv: loss against sparsity\n1 seed; "
        "band: difference to dense, 95% interval over test windows"
    )
    both = drawn([*controls(), *controls(1), *curve(), *curve(seed=1)])
    assert both.get_suptitle().endswith(
        "2 seeds; band: difference to dense, 95% t interval over seeds"
    )


def test_rates_are_drawn_at_the_sparsity_they_achieved() -> None:
    figure = drawn([*controls(), pruned(None, 1.9, rate=1.575, sparsity=0.6012)])
    lower = figure.axes[-1]
    assert lower.get_xlabel() == "sparsity achieved (% of prunable weights)"
    assert lower.lines[5].get_xdata() == pytest.approx([60.12])


def test_an_infinite_loss_leaves_the_rest_drawn(tmp_path: Path) -> None:
    infinite = pruned(0.95, float("inf"), loss_before_recovery_nats=float("inf"))
    write_figure(drawn([*controls(), *curve(), infinite]), tmp_path, "loss")
    with pytest.raises(SweError, match="no pruned row"):
        drawn([*controls(), infinite])
    with pytest.raises(SweError, match="no pruned row"):
        drawn(controls())


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    rows = [*controls(), *curve()]
    first = write_figure(drawn(rows), tmp_path / "a", "loss")
    second = write_figure(drawn(rows[::-1]), tmp_path / "b", "loss")
    assert [path.name for path in first] == ["loss.png", "loss.svg"]
    for one, other in zip(first, second, strict=True):
        assert one.stat().st_size > 5000
        assert one.read_bytes() == other.read_bytes()
    other = write_figure(drawn([*rows, pruned(0.2, 2.0)]), tmp_path / "c", "loss")
    assert other[1].read_bytes() != first[1].read_bytes()
    assert b"<dc:date>" not in first[1].read_bytes()


def test_weights_are_drawn_kept_and_pruned(tmp_path: Path) -> None:
    values = np.arange(15.0).reshape(3, 5)
    kept = np.array([True, False, True, True, False])
    figure = weight_evolution_figure([0, 10, 20], values, kept, criterion="swe", ratio=0.4)
    left, right = figure.axes
    assert (left.get_title(), right.get_title()) == ("kept: 3 weights", "pruned: 2 weights")
    assert (len(left.lines), len(right.lines)) == (1 + 3, 1 + 2)
    np.testing.assert_array_equal(right.lines[1].get_ydata(), values[:, 1])
    assert figure.get_suptitle() == "Weights over training, judged by swe at ratio 0.4"
    assert all(path.stat().st_size > 1000 for path in write_figure(figure, tmp_path, "w"))


def test_weights_all_kept_and_shapes_that_disagree(tmp_path: Path) -> None:
    everything = np.ones(2, dtype=bool)
    figure = weight_evolution_figure(
        [0, 1], np.zeros((2, 2)), everything, criterion="swe", ratio=0.0
    )
    write_figure(figure, tmp_path, "w")
    with pytest.raises(ValueError, match="are not"):
        weight_evolution_figure([0], np.zeros((2, 2)), everything, criterion="swe", ratio=0.0)
