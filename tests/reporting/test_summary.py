import math
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from swe_cli.errors import SweError
from swe_cli.records import Row
from swe_cli.report.figures import curve as figure_of
from swe_cli.report.figures import write_figure
from swe_cli.report.inference import p_value, q_values, t_interval
from swe_cli.report.quantities import LOSS, sign
from swe_cli.report.summary import Point, chosen, means, summarise
from swe_cli.report.tables import caveats, frame, split_by_protocol
from swe_cli.report.terminal import print_summary

from .toys import changed, controls, curve, data_of, only, pruned, summed


def loss(point: Point) -> tuple[float, float, float]:
    return point["loss_nats"], point["loss_low"], point["loss_high"]


def test_three_seeds_give_the_t_interval_of_the_tables() -> None:
    # Mean 2, s = 1, t(0.975, 2) = 4.30265: half width 4.30265 / √3 = 2.48414.
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, -0.48414, 4.48414), abs=1e-5)
    point = only(pruned(0.1, 1.0 + seed, seed=seed) for seed in range(3)).points[0]
    assert loss(point) == pytest.approx((2.0, -0.48414, 4.48414), abs=1e-5)
    assert point["interval"] == "seeds"


def test_one_seed_keeps_its_interval_over_windows() -> None:
    empty = pruned(0.1, 2.0, seed=1)
    empty = changed(empty, loss_nats=None, loss_low=None, loss_high=None)
    point = only([pruned(0.1, 2.0, loss_low=1.9, loss_high=2.2), empty]).points[0]
    assert loss(point) == (2.0, 1.9, 2.2)
    assert point["interval"] == "windows"
    assert loss(only([empty]).points[0]) == (None, None, None)


def test_an_infinite_loss_stays_infinite() -> None:
    point = only([pruned(0.1, 1.0), pruned(0.1, float("inf"), seed=1)]).points[0]
    assert loss(point) == (float("inf"),) * 3


def test_too_few_windows_for_an_interval_leave_signs_bands_and_verdicts_out(tmp_path: Path) -> None:
    bare = dict.fromkeys(
        f"{name}_{end}" for name in ("loss", "delta", "delta_recovered") for end in ("low", "high")
    )
    rows = [pruned(ratio, 1.5, **bare) for ratio in (0.1, 0.3)]
    (line,) = summed(rows).lines
    assert loss(line.points[0]) == (1.5, None, None)
    file = StringIO()
    print_summary(Console(width=80, file=file), summed(rows))
    text = file.getvalue()
    assert "swe −.570 −.570     –" in text
    assert (text.count("▼"), text.count("▲")) == (1, 1)  # the legend's
    figure = figure_of(summed([*controls(), *rows]), LOSS)
    assert all(cut["low"] is None for cut in data_of(figure.to_dict(), "line"))
    write_figure(figure, tmp_path, "loss")
    # Over seeds there is an interval again.
    seeds = only([*rows, *(changed(row, seed=1, loss_nats=1.6) for row in rows)])
    assert loss(seeds.points[0]) == pytest.approx((1.55, 0.91469, 2.18531), abs=1e-5)


def test_means_over_seeds_are_a_table() -> None:
    rows = [*controls(), *controls(1), *curve(), *curve(seed=1, shift=0.02)]
    table = means([summed(rows), summed(curve(fingerprint="f2", seed=2))])
    assert list(table["fingerprint"].unique()) == ["f1", "f2"]
    first = table[(table["kind"] == "pruned") & (table["fingerprint"] == "f1")].iloc[0]
    assert (first["seeds"], first["interval"], first["ratio"], first["label"]) == (
        *(2, "seeds", 0.1, "swe"),
    )
    assert (first["loss_nats"], first["delta_nats"]) == pytest.approx((2.07, 0.0))
    assert first["delta_high"] == pytest.approx(0.01 * 12.7062, abs=1e-5)
    assert len(table) == 4 + 5 + 5
    assert "accuracy" not in table


def ran(rows: list[Row]) -> list[tuple[str | None, str | None]]:
    columns = [row.columns() for row in rows]
    return [(of["criterion"], of["allocation"]) for of in columns]


def test_a_foreign_allocation_is_said() -> None:
    published = {"wanda": "row", "swe": "sigma", "snip": "global"}
    rows = [*curve("wanda"), *curve("swe"), *curve("snip", allocation="uniform")]
    rows += [*curve("wanda", allocation="row"), *curve("theirs")]
    assert caveats(ran(rows), published) == [
        "swe ran with allocation global; published with sigma. "
        "wanda ran with allocation global; published with row."
    ]
    assert caveats(ran(curve("wanda", allocation="row")), published) == []
    file = StringIO()
    print_summary(Console(width=80, file=file), summed(rows, published=published))
    assert "wanda ran with allocation global; published with row." in " ".join(
        file.getvalue().split()
    )


def test_lines_share_everything_but_seed_and_ratio() -> None:
    rows = [
        *curve("swe"),
        *curve("swe", seed=1, shift=0.02, training="other"),
        *curve("swe", base="averaged"),
        *curve("random"),
    ]
    lines = summed([*controls(), *rows]).lines
    assert [line.label for line in lines] == [
        "random (base final)",
        "swe (base averaged)",
        "swe (base final)",
    ]
    point = lines[2].points[0]
    assert point["seeds"] == (0, 1)
    assert point["loss_nats"] == pytest.approx(2.07)
    assert point["interval"] == "seeds"
    assert loss(lines[1].points[0]) == (2.06, 2.055, 2.065)
    assert lines[1].points[0]["interval"] == "windows"


def test_axes_make_lines_and_rates_make_their_own() -> None:
    rows = [
        *curve(axes={"tracking.every": 1}),
        *curve(axes={"tracking.every": 10}),
        pruned(None, 1.9, rate=1.575, sparsity=0.601, axes={"tracking.every": 1}),
    ]
    lines = summed(rows).lines
    assert {line.label for line in lines} == {
        "swe (by ratio, tracking.every 1)",
        "swe (by ratio, tracking.every 10)",
        "swe (by rate, tracking.every 1)",
    }
    assert [line.points[0]["x"] for line in lines if line.by == "rate"] == [0.601]


def test_overlap_and_lowest_point() -> None:
    (line,) = summed(curve()).lines
    assert chosen(line.points, LOSS) is line.points[2]
    assert line.points[2]["jaccard_magnitude"] == 0.5


def twins(criterion: str, **changes: Any) -> list[Row]:
    """A line of the very same models as every other of the same changes."""
    changed_to = {"loss_before_recovery_nats": 4.0, **changes}
    return [changed(row, **changed_to) for seed in (0, 1) for row in curve(criterion, seed=seed)]


def test_lines_of_the_same_models_are_one_that_keeps_the_settings_of_swe() -> None:
    rows = [*twins("magnitude"), *twins("swe"), *twins("theirs"), *curve("random")]
    one, other = sorted(summed(rows).lines, key=lambda line: line.criterion)[::-1]
    assert (one.criterion, one.criteria) == ("swe", ("swe", "magnitude", "theirs"))
    assert one.label == one.short == "swe = magnitude = theirs"
    assert one.points[0]["cells"][1]["criterion"] == "swe"
    assert (other.label, other.criteria) == ("random", ("random",))


def test_one_bit_one_seed_or_one_cut_more_is_another_line() -> None:
    for other in (
        twins("swe", loss_before_recovery_nats=math.nextafter(4.0, 5)),
        twins("swe")[:5],
        twins("swe")[1:],
        [*twins("swe")[:9], changed(twins("swe")[9], status="failed", error="lost")],
    ):
        assert len(summed([*twins("magnitude"), *other]).lines) == 2


def test_an_axis_that_changes_nothing_is_not_said() -> None:
    rows = [row for every in (1, 2) for row in twins("magnitude", axes={"every": every})]
    rows += [row for every in (1, 2) for row in curve(axes={"every": every})]
    labels = [line.label for line in summed(rows).lines]
    assert labels == ["magnitude", "swe (every 1)", "swe (every 2)"]


def test_the_same_control_twice_is_named() -> None:
    dense, best, recovered, averaged = controls()
    summary = summed([dense, changed(best, loss_nats=2.07), recovered, averaged, *curve()])
    assert summary.equal == {"dense best": "dense"}
    assert "dense best = dense: the same weights." in summary.caveats
    assert not summed([*controls(), *curve()]).equal


def test_q_values_are_of_all_cuts_and_controls_together() -> None:
    summary = summed([*controls(), *curve(), *curve("random", shift=0.01)])
    ends = summary.points[["delta_nats", "delta_low", "delta_high"]]
    p = [p_value(*of, 1) for of in ends.itertuples(index=False)]
    tested = [*summary.controls, *summary.cuts]
    assert [point["delta_q"] for point in tested] == pytest.approx(q_values(p))
    assert sign(summary.controls[1], "delta_nats") == -1


def test_seeds_that_agree_to_the_last_bit_are_no_certainty() -> None:
    rows = [row for seed in (0, 1) for row in (*controls(seed), pruned(0.5, 2.0, seed=seed))]
    (cut,) = summed(rows).cuts
    assert cut["delta_low"] == cut["delta_high"] < 0
    assert cut["delta_q"] is None
    assert sign(cut, "delta_nats") == 0


def test_controls_are_averaged_in_order_and_not_repeated_per_axis() -> None:
    repeated = [*controls(), *controls(1)]
    summary = summed([*repeated, *curve(axes={"tracking.every": 1})])
    assert [control["label"] for control in summary.controls] == [
        "dense",
        "dense best",
        "dense recovered",
        "dense averaged",
    ]
    assert summary.controls[0]["seeds"] == (0, 1)


def test_an_axis_is_said_only_of_the_controls_that_it_changes() -> None:
    ten = [changed(row, axes={"every": 10}) for row in controls()]
    ten[3] = changed(ten[3], loss_nats=1.9)
    one = [changed(row, axes={"every": 1}) for row in controls()]
    assert [control["label"] for control in summed([*one, *ten]).controls] == [
        "dense",
        "dense best",
        "dense recovered",
        "dense averaged (every 1)",
        "dense averaged (every 10)",
    ]


def test_a_cut_that_failed_at_one_seed_has_no_mean_over_the_others() -> None:
    failed = pruned(0.9, 99.0, status="failed", error="boom", seed=1)
    summary = summed([*curve(), failed])
    assert list(summary.failed["error"]) == ["boom"]
    last = summary.lines[0].points[-1]
    assert last["failed"]
    assert last["seeds"] == (0,)
    assert last["loss_nats"] is None
    assert [point["failed"] for point in summary.lines[0].points[:-1]] == [False] * 4


def test_two_protocols_are_refused_and_can_be_split() -> None:
    failed = pruned(0.5, 2.0, status="failed", fingerprint="")
    rows = [*curve(), *curve(fingerprint="f2"), failed]
    with pytest.raises(SweError, match="2 protocols"):
        summed(rows)
    groups = split_by_protocol(frame(rows))
    assert [summarise(group).fingerprint for group in groups] == ["f1", "f2"]
    assert [len(summarise(group).failed) for group in groups] == [1, 0]


def test_models_are_not_mixed_and_nothing_is_an_error() -> None:
    with pytest.raises(SweError, match="2 models"):
        summed([*curve(), *curve(model="gpt_tiny")])
    with pytest.raises(SweError, match="no row"):
        summed([])


def test_two_different_rows_for_one_seed_are_refused() -> None:
    with pytest.raises(SweError, match="no column shows"):
        summed([pruned(0.1, 2.0), pruned(0.1, 2.1, config_hash="other")])
    assert summed([pruned(0.1, 2.0), pruned(0.1, 2.0)]).lines[0].points[0]["seeds"] == (0,)


def test_the_band_is_the_paired_interval() -> None:
    rows = [*controls(), pruned(0.5, 1.9, delta_nats=-0.2, delta_low=-0.23, delta_high=-0.18)]
    cut = data_of(figure_of(summed(rows), LOSS).to_dict(), "line")[0]
    assert (cut["low"], cut["value"], cut["high"]) == pytest.approx((-0.23, -0.2, -0.18))


def test_a_cut_stands_where_it_got_where_a_ratio_is_of_something_else():
    """Half of the heads is not half of the weights; a weight or two of a tiny model is rounding."""
    heads = changed(pruned(0.5, 2.1), sparsity=1 / 6, pattern="head")
    (line,) = summed([heads]).lines
    assert [point["x"] for point in line.points] == [0.167]
    (line,) = summed([changed(pruned(0.5, 2.1), sparsity=0.4998)]).lines
    assert [point["x"] for point in line.points] == [0.5]


def test_who_cuts_what_magnitude_cuts_is_named_but_not_where_averages_are_cut() -> None:
    for base, overlap, said in (
        ("final", 0.995, True),
        ("averaged", 1.0, False),
        ("final", 0.9, False),
    ):
        summary = summed([pruned(0.5, 2.0, base=base, jaccard_magnitude=overlap)])
        assert any("swe cuts what magnitude cuts" in c for c in summary.caveats) == said
