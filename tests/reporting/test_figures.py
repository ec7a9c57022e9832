from pathlib import Path
from typing import Any

import numpy as np
import pytest

from swe_cli.errors import SweError
from swe_cli.records import Row
from swe_cli.report.figures import curve as figure_of
from swe_cli.report.figures import weight_evolution, write_figure
from swe_cli.report.quantities import LOSS

from .toys import channel, controls, curve, data_of, legends, marks, pruned, summed, title


def drawn(rows: list[Row], **options: Any) -> dict[str, Any]:
    return figure_of(summed(rows, **options), LOSS).to_dict()


def test_every_line_and_control_is_drawn_and_named() -> None:
    rows = [*controls(), *curve(axes={"every": 1}), *curve(axes={"every": 10}, shift=0.1)]
    figure = drawn(rows)
    assert legends(figure) == [
        ["swe (every 1)", "swe (every 10)"],
        ["after recovery", "before recovery"],
        ["dense 2.0700", "dense best 1.8400", "dense recovered 2.0500", "dense averaged 1.8100"],
    ]
    assert marks(figure) == ["area", "line", "point", "rule", "rule"]
    cuts = [cut for cut in data_of(figure, "line") if cut["stage"] == "after recovery"]
    (one, other) = ([c for c in cuts if c["line"].endswith(end)] for end in ("1)", "10)"))
    assert [cut["x"] for cut in one] == [10, 30, 60, 80, 90]
    np.testing.assert_allclose([cut["value"] for cut in one][:4], [2.06, 2.0, 1.91, 2.19])
    # The paired interval of the difference, around the mean.
    assert (other[0]["low"], other[0]["high"]) == pytest.approx((2.155, 2.165))
    assert len(data_of(figure, "line")) == 2 * 2 * 5


def test_the_readable_part_keeps_to_the_controls_and_the_rest_is_logarithmic() -> None:
    figure = drawn([*controls(), *curve()])
    y = channel(figure, "line", "y")
    low = y["scale"]["domain"][0]
    assert 1.7 < low < 1.81
    title = y["axis"]["title"]
    assert title.startswith("loss (nats per token), log scale above 2.2")
    cut = float(title.split()[-1])
    assert 2.19 < cut < 2.4
    # 4 and 5.8: as far apart as their logarithms, below the end of the axis.
    places = np.interp([cut, 4, 5.8], y["scale"]["domain"], y["scale"]["range"])
    assert places[0] > places[1] > places[2] >= 0
    assert places[0] - places[1] == pytest.approx(
        (places[0] - places[2]) * np.log(4 / cut) / np.log(5.8 / cut), rel=1e-3
    )


def test_a_linear_axis_is_enough_where_nothing_explodes() -> None:
    rows = [pruned(r, 2.0, loss_before_recovery_nats=None) for r in (0.1, 0.2)]
    figure = drawn([*controls(), *rows])
    assert channel(figure, "line", "y")["axis"]["title"] == "loss (nats per token)"
    assert legends(figure)[1] == ["after recovery"]


def test_the_title_says_what_the_band_is_and_whose_allocation_is_not_its_own() -> None:
    assert title(drawn([*controls(), *curve()])) == [
        "gpt_nano on kjv: loss against sparsity",
        "1 seed; band: difference to dense, 95% interval over test windows of this training only",
    ]
    both = drawn([*controls(), *controls(1), *curve(), *curve(seed=1)])
    assert title(both)[1] == "2 seeds; band: difference to dense, 95% t interval over seeds"
    foreign = drawn([*controls(), *curve("wanda")], published={"wanda": "row"})
    assert title(foreign)[2] == "wanda ran with allocation global; published with row."


def test_rates_are_drawn_at_the_sparsity_they_achieved() -> None:
    figure = drawn([*controls(), pruned(None, 1.9, rate=1.575, sparsity=0.6012)])
    assert channel(figure, "line", "x")["title"] == "sparsity achieved (% of prunable weights)"
    assert {cut["x"] for cut in data_of(figure, "line")} == {60.12}


def test_cuts_without_controls_are_drawn(tmp_path: Path) -> None:
    write_figure(figure_of(summed(curve()), LOSS), tmp_path, "loss")
    assert "Infinity" not in (svg := (tmp_path / "loss.svg").read_text())
    assert "e+308" not in svg


def test_an_infinite_loss_leaves_the_rest_drawn(tmp_path: Path) -> None:
    infinite = pruned(0.95, float("inf"), loss_before_recovery_nats=float("inf"))
    figure = figure_of(summed([*controls(), *curve(), infinite]), LOSS)
    write_figure(figure, tmp_path, "loss")
    assert 95 not in {cut["x"] for cut in data_of(figure.to_dict(), "line")}
    for rows in ([*controls(), infinite], controls()):
        with pytest.raises(SweError, match="no pruned row"):
            drawn(rows)


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    rows = [*controls(), *curve()]

    def written(rows: list[Row], name: str) -> list[Path]:
        return write_figure(figure_of(summed(rows), LOSS), tmp_path / name, "loss")

    first, second = written(rows, "a"), written(rows[::-1], "b")
    assert [path.name for path in first] == ["loss.png", "loss.svg"]
    for one, other in zip(first, second, strict=True):
        assert one.stat().st_size > 5000
        assert one.read_bytes() == other.read_bytes()
    other = written([*rows, pruned(0.2, 2.0)], "c")
    assert other[1].read_bytes() != first[1].read_bytes()


def test_weights_are_drawn_kept_and_pruned(tmp_path: Path) -> None:
    values = np.arange(15.0).reshape(3, 5)
    kept = np.array([True, False, True, True, False])
    figure = weight_evolution([0, 10, 20], values, kept, criterion="swe", ratio=0.4)
    spec = figure.to_dict()
    (dots,) = spec["datasets"].values()
    assert len([dot for dot in dots if dot["panel"] == "kept: 3 weights"]) == 9
    cut = [dot for dot in dots if dot["panel"] == "pruned: 2 weights"]
    assert len(cut) == 6
    assert [dot["value"] for dot in cut if dot["weight"] == 1] == values[:, 1].tolist()
    assert title(spec) == ["Weights over training, judged by swe at ratio 0.4"]
    assert all(path.stat().st_size > 1000 for path in write_figure(figure, tmp_path, "w"))


def test_weights_all_kept_and_shapes_that_disagree(tmp_path: Path) -> None:
    everything = np.ones(2, dtype=bool)
    figure = weight_evolution([0, 1], np.zeros((2, 2)), everything, criterion="swe", ratio=0.0)
    write_figure(figure, tmp_path, "w")
    with pytest.raises(ValueError, match="are not"):
        weight_evolution([0], np.zeros((2, 2)), everything, criterion="swe", ratio=0.0)
