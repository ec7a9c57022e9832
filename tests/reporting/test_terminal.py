from collections.abc import Sequence
from io import StringIO

import pytest
from rich.console import Console

from swe_cli.records import Row
from swe_cli.report.terminal import print_row, print_summary

from .toys import changed, controls, curve, pruned, summed

FIVE = ("swe", "magnitude", "random", "stability", "net_movement")


def rendered(rows: Sequence[Row]) -> str:
    file = StringIO()
    print_summary(Console(width=80, file=file), summed(rows))
    return file.getvalue()


def squeezed(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def lines_of(count: int, **changes: object) -> list[Row]:
    return [row for name in FIVE[:count] for row in curve(name, **changes)]


def exploding() -> list[Row]:
    wide = {"delta_low": 10.12345, "delta_high": 1234.5, "loss_low": -123.45, "loss_high": 99999.0}
    return [pruned(0.5, 12345.678, delta_nats=-123.4, **wide), *controls()]


@pytest.mark.parametrize(
    "rows",
    [
        [*controls(), *lines_of(1)],
        [*controls(), *lines_of(3)],
        [*controls(), *lines_of(5), *lines_of(5, base="averaged")],
        [*lines_of(2, axes={"training.optimizer.weight_decay": 0.1}), *lines_of(2)],
        [*controls(), pruned(None, 12.3456, rate=1.575, sparsity=0.6012, delta_high=10.5)],
        exploding(),
    ],
    ids=["one", "three", "ten", "long-names", "rate", "exploding"],
)
def test_eighty_columns_hold_everything(rows: list[Row]) -> None:
    text = rendered(rows)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("size", [1, 3, 5])
def test_every_line_is_a_block_with_intervals_and_marks(size: int) -> None:
    rows = squeezed(rendered([*controls(), *lines_of(size)]))
    for name in FIVE[:size]:
        assert rows.count(name) == 1
    for wanted in (
        "ratio before loss delta",
        "0.6 3.8200 1.9100 [1.9050, 1.9150] -0.1600 [-0.1650, -0.1550] ▼*",
        "0.8 4.3800 2.1900 [2.1850, 2.1950] +0.1200 [+0.1150, +0.1250] ▲",
    ):
        assert rows.count(wanted) == size


def test_break_points_are_a_table_however_many_lines_there_are() -> None:
    for size in (1, 5):
        rows = squeezed(rendered([*controls(), *lines_of(size)]))
        for name in FIVE[:size]:
            assert f"{name} 0.6 <0.1 – 1.9100 0.6" in rows
    assert "holds: costs at most 0.01 nats, by the bound of the paired 95% interval" in rows


def test_no_value_is_lost() -> None:
    text = rendered(exploding())
    for number in ("1.2e+04", "[-123.45, 1.0e+05]", "-123.40", "[+10.123, +1234.5]"):
        assert number in text


def test_controls_with_intervals_and_what_they_are_over() -> None:
    text = rendered([*controls(), *lines_of(1)])
    assert "95% interval over test windows" in text
    rows = squeezed(text)
    assert "dense best 1.8400 [1.8300, 1.8500] -0.2300 [-0.2400, -0.2200] ▼" in rows
    several = rendered([*controls(), *controls(1), *curve(), *curve(seed=1)])
    assert "95% t interval over seeds" in several


def test_overlap_stands_beside_chance() -> None:
    by_rate = pruned(None, 2.0, rate=1.575, sparsity=0.6012, jaccard_magnitude=0.4)
    rows = squeezed(rendered([*lines_of(2), by_rate]))
    for wanted in (
        *("0.1 0.3 0.6 0.8 0.9", "swe, ratio 0.5000 0.5000 0.5000 0.5000 0.5000"),
        *("chance 0.0526 0.1765 0.4286 0.6667 0.8182", "1.575", "60.1%"),
        *("swe, rate 0.4000", "chance 0.4298"),
    ):
        assert wanted in rows
    assert "Overlap" not in rendered(curve(jaccard_magnitude=None))


def test_failures_and_missing_seeds_are_shown() -> None:
    failed = pruned(0.9, 1.0, status="failed", error="Scores are NaN [in h.0].\nmore", seed=1)
    text = rendered([*curve(), *curve(seed=1)[:-1], failed])
    assert "1 cell failed" in text
    assert "First: swe at 0.9: Scores are NaN [in h.0]." in text
    assert "swe at 0.9 (1 of 2)" in text
    assert "First: dense best: lost" in rendered(
        [*curve(), changed(controls()[1], status="failed", error="lost")]
    )
    assert "3 cells failed" in rendered([pruned(r, 1.0, status="failed") for r in (0.1, 0.2, 0.3)])


def test_a_rate_that_failed_is_named_by_what_was_asked() -> None:
    failed = pruned(None, 2.0, rate=2.5, sparsity=None, status="failed", error="no | luck")
    rows = [pruned(None, 2.0, rate=rate, sparsity=rate / 4) for rate in (1.0, 2.0)]
    shown = squeezed(rendered([*rows, failed]))
    assert "2.5 – – –" in shown
    assert "50.0% 4.0000 2.0000 [1.9950, 2.0050] -0.0700 [-0.0750, -0.0650] ▼" in shown
    assert "Fewer seeds than elsewhere: swe at 2.5 (0 of 1)." in shown


def test_a_row_is_labels_and_values() -> None:
    file = StringIO()
    print_row(Console(width=80, file=file), pruned(0.6, 1.91, axes={"tracking.every": 10}))
    rows = squeezed(file.getvalue())
    assert "ratio 0.6" in rows
    assert "tracking.every 10" in rows
    assert "loss 1.9100 nats per token [1.9050, 1.9150]" in rows
    assert "against dense -0.1600 [-0.1650, -0.1550]" in rows
    assert not any(row.startswith("perplexity") for row in rows)


def test_a_failed_row_says_why() -> None:
    file = StringIO()
    print_row(Console(width=80, file=file), pruned(0.6, 1.9, status="failed", error="x " * 90))
    assert "failed" in file.getvalue()
    assert "nats" not in file.getvalue()
    assert max(map(len, file.getvalue().splitlines())) <= 80
