from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from swe_cli.evaluation.loss import Measured
from swe_cli.records import Row
from swe_cli.report.summary import summarise
from swe_cli.report.tables import split_by_protocol
from swe_cli.report.terminal import print_row, print_summary

from .toys import changed, controls, curve, pruned, summed

FIVE = ("swe", "magnitude", "random", "stability", "net_movement")
RESULTS = Path(__file__).parents[2] / "results"


def rendered(made: Sequence[Row], width: int = 80, windows: Any = None, **k: Any) -> str:
    file = StringIO()
    print_summary(Console(width=width, file=file), summed(made), windows, **k)
    return file.getvalue()


def squeezed(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def said(made: Sequence[Row], **k: Any) -> str:
    return " ".join(rendered(made, **k).split())


def lines_of(count: int, **changes: object) -> list[Row]:
    return [row for name in FIVE[:count] for row in curve(name, **changes)]


def exploding() -> list[Row]:
    wide = {"delta_low": 10.12345, "delta_high": 1234.5, "loss_low": -123.45, "loss_high": 99999.0}
    return [pruned(0.5, 12345.678, delta_nats=-123.4, **wide), *controls()]


@pytest.mark.parametrize("width", [80, 40])
@pytest.mark.parametrize("everything", [False, True], ids=["short", "rows"])
@pytest.mark.parametrize(
    "rows",
    [
        [*controls(), *lines_of(1)],
        [*controls(), *lines_of(5), *lines_of(5, base="averaged")],
        [*lines_of(2, axes={"training.optimizer.weight_decay": 0.1}), *lines_of(2)],
        [*controls(), pruned(None, 12.3456, rate=1.575, sparsity=0.6012, delta_high=10.5)],
        exploding(),
    ],
    ids=["one", "ten", "long-names", "rate", "exploding"],
)
def test_the_window_holds_everything(rows: list[Row], width: int, everything: bool) -> None:
    text = rendered(rows, width, rows=everything)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    for name in {row.settings["criterion"] for row in rows if "criterion" in row.settings}:
        assert any(line.startswith(str(name)) for line in text.splitlines())


@pytest.mark.parametrize("name", ["criteria_gpt.csv", "demo/table.csv", "criteria_llava.csv"])
def test_forty_lines_are_enough(name: str) -> None:
    (group,) = split_by_protocol(pd.read_csv(RESULTS / name))
    file = StringIO()
    print_summary(Console(width=80, file=file), summarise(group))
    lines = file.getvalue().splitlines()
    assert len(lines) <= 38  # and one, below an empty one, on where the files are
    for criterion in ("swe", "magnitude", "random"):
        assert any(f"{criterion}, " in f"{line} ".replace(" = ", ", ") for line in lines)
    if "criteria" in name and "gpt" in name:
        assert "70 more lines with --rows." in file.getvalue()


def test_the_answer_over_seeds_by_hand() -> None:
    """swe less magnitude 0.01, 0.02, 0.03: t(0.975, 2) · 0.01 / √3; t's power four of five."""
    rows = [row for seed in range(3) for row in controls(seed)]
    for seed, more in enumerate((0.01, 0.02, 0.03)):
        rows += [pruned(0.5, 1.7 + seed, seed=seed, criterion="magnitude")]
        rows += [pruned(0.5, 1.7 + seed + more, seed=seed), pruned(0.8, 9.0, seed=seed)]
    words = said(rows)
    # The best control, on test, is the averaged model, of the same loss at every seed.
    assert "Loss: swe at 0.5 against dense averaged, the best control: +0.910" in words
    told = "Against magnitude at 0.5: +0.020 [−0.005, +0.045] nats, 3 seeds; could have seen 0.033"
    assert f"{told}: undecided." in words
    assert "To see 0.01 nats there would take 10 seeds (paired SD 0.010)." in words
    assert "this training only" not in words


def test_one_seed_is_compared_by_its_windows_and_says_what_that_is_worth() -> None:
    nats = {"swe": [1.0, 5.0], "magnitude": [2.0, 8.0], "dense_averaged0": [1.0, 5.0]}

    def windows(config_hash: str) -> tuple[Measured, Measured]:
        found = next(of for name, of in nats.items() if config_hash.startswith(name))
        measured = {"nats": np.array(found), "tokens": np.array([1, 3])}
        return measured, measured

    rows = [*controls(), *lines_of(2)]
    words = said(rows, windows=windows)
    assert "1 seed (0): this training only" in words
    # −1 and −3 nats of 1 and 3 tokens: −1 nat per token in every window.
    wanted = "magnitude at 0.6: −1.000 [−1.000, −1.000] nats, this training only: ahead."
    assert wanted in words
    same = "dense averaged, the best control: +0.000 [+0.000, +0.000] nats, this training only"
    assert f"{same}: identical." in words
    assert "95% interval over test windows of this training only" in words
    assert "would take" not in words  # one seed tells no spread
    alone = said(rows)
    assert "magnitude at 0.6: +0.000 nats, this training only, no interval: undecided" in alone
    # What a row knows of dense recovered needs no windows.
    dense, _, recovered, _ = controls()  # at 2.05, which the best cut is 0.14 below
    alone = said([dense, recovered, *curve()])
    known = "dense recovered, the best control: −0.140 [−0.145, −0.135] nats, this training only"
    assert f"{known}: ahead." in alone


def test_the_best_ratio_is_chosen_on_validation_and_reported_on_test() -> None:
    losses = {0.3: (2.0, 1.9), 0.6: (1.9, 2.0)}  # on test, on validation
    rows = [
        changed(pruned(ratio, test), measures={"validation_loss_nats": validation})
        for ratio, (test, validation) in losses.items()
    ]
    words = said(rows)
    assert "Loss: swe at 0.3" in words
    assert "best on test" not in words
    older = said([rows[0], pruned(0.6, 1.9)])
    assert "Loss: swe at 0.6" in older
    assert "single tests of the best on test (no validation loss)" in older


def test_what_is_missing_is_said_where_it_would_have_stood() -> None:
    words = said(curve("wanda"))
    assert "wanda at 0.6: these rows have no control to hold it against." in words
    assert "No row is of magnitude." in words
    assert "No control: nothing says what a cut costs." in words


def test_the_grid_shows_differences_marks_and_how_far_lines_hold() -> None:
    rows = squeezed(rendered([*controls(), *lines_of(3)]))
    assert "0.1 0.3 0.6 0.8 0.9 holds" in rows
    # −0.010 ± 0.005, −0.070, −0.160, +0.120, +0.830
    assert rows.count("swe ▼.010 ▼.070 ▼.160 ▲.120 ▲.830 0.6") == 1
    assert "dense best 1.840 ▼.230" in rows
    assert "swe −" not in rows


def test_a_mark_needs_q_and_not_only_its_own_interval() -> None:
    """One difference of p = 0.04 among nine that are nothing is no discovery."""
    rows = [pruned(0.1, 2.0, delta_nats=0.1, delta_low=0.0046, delta_high=0.1954)]
    assert "▲.100" in rendered(rows)
    nothing = {"delta_nats": 0.001, "delta_low": -0.1, "delta_high": 0.102}
    rows += [pruned(0.1 + place / 20, 2.0, **nothing) for place in range(1, 10)]
    text = rendered(rows)
    assert "+.100" in text
    assert "▲.100" not in text
    assert "q < 0.05 (exploratory, Benjamini-Hochberg)" in " ".join(text.split())


def test_a_tolerance_reaches_what_holds() -> None:
    assert "swe ▼.010 ▼.070 ▼.160 ▲.120 ▲.830 0.8" in squeezed(rendered(curve(), tolerance=0.2))
    assert "costs at most 0.2 nats" in said(curve(), tolerance=0.2)


def test_no_recovery_is_not_called_one() -> None:
    bare = curve(recovery="none", loss_before_recovery_nats=None)
    assert "Loss without recovery" in rendered(bare)
    zero = [changed(row, loss_before_recovery_nats=row.mean("loss")) for row in curve()]
    assert "Loss without recovery" in rendered(zero)
    assert "Loss after recovery" in rendered(curve())


def test_equal_controls_are_one_and_said() -> None:
    dense, best, recovered, averaged = controls()
    recovered = changed(recovered, loss_nats=2.07)
    text = rendered([dense, best, recovered, averaged, *curve()])
    assert "dense recovered = dense: the same weights." in text
    assert "dense recovered  " not in text


def test_a_temperature_at_its_bound_is_flagged() -> None:
    rows = [changed(row, measures={"temperature": 16.0}) for row in curve()]
    words = "The temperature of 5 rows stands at its bound (0.25 or 16)"
    assert words in rendered([*rows, *controls()])
    assert "stands at its bound" not in rendered([changed(rows[0], measures={"temperature": 15.9})])


@pytest.mark.parametrize("size", [1, 3])
def test_rows_shows_every_line_with_intervals_and_marks(size: int) -> None:
    rows = squeezed(rendered([*controls(), *lines_of(size)], rows=True))
    for name in FIVE[:size]:
        assert rows.count(name) == 1
        assert f"{name}: dense 0.6, dense recovered <0.1" in rows
    for wanted in (
        "cut before lap loss delta",
        "0.6 3.8200 0.5000 1.9100 [1.9050, 1.9150] −0.1600 [−0.1650, −0.1550] ▼",
        "0.8 4.3800 0.5000 2.1900 [2.1850, 2.1950] +0.1200 [+0.1150, +0.1250] ▲",
    ):
        assert rows.count(wanted) == size


def test_no_value_is_lost() -> None:
    text = rendered(exploding(), rows=True)
    for number in ("1.2e+04", "[−123.45, 1.0e+05]", "−123.40", "[+10.123, +1234.5]"):
        assert number in text


def test_controls_with_intervals_and_what_they_are_over() -> None:
    rows = squeezed(rendered([*controls(), *lines_of(1)], rows=True))
    assert "dense best 1.8400 [1.8300, 1.8500] −0.2300 [−0.2400, −0.2200] ▼" in rows
    several = said([*controls(), *controls(1), *curve(), *curve(seed=1)])
    assert "95% t interval over seeds" in several


def test_cuts_that_no_two_lines_share_are_listed_with_their_whole_names() -> None:
    """As of a training that was cut by hand, a different way each time."""
    rows = [
        pruned(place / 10, 2.0, criterion=name, axes={"training.optimizer.weight_decay": place})
        for place, name in enumerate(FIVE, 1)
    ]
    text = rendered([*controls(), *rows], 50)
    shown = " ".join(text.split())
    assert "best at holds" in shown
    assert "stability, ▼.07 0.4 ≥0.4 training.optimizer.weight_decay 4" in shown
    assert "…" not in text


def test_a_wide_axis_is_thinned_and_said_so() -> None:
    rows = [pruned(place / 100, 2.0) for place in range(5, 95, 3)]
    shown = squeezed(rendered([*controls(), *rows]))
    assert "12 of 31 columns: a wider window shows more." in shown
    assert "0.05 0.14 0.2 0.29 0.38 0.47 0.53 0.62 0.71 0.8 0.86 holds" in shown


def test_failures_and_missing_seeds_are_shown() -> None:
    failed = pruned(0.9, 1.0, status="failed", error="Scores are NaN [in h.0].\nmore", seed=1)
    text = rendered([*curve(), *curve(seed=1)[:-1], failed])
    assert "1 cell failed" in text
    assert "First: swe at 0.9: Scores are NaN [in h.0]." in text
    assert "swe at 0.9 (1 of 2)" in text
    assert "×" in text
    assert "First: dense best: lost" in rendered(
        [*curve(), changed(controls()[1], status="failed", error="lost")]
    )
    assert "3 cells failed" in rendered([pruned(r, 1.0, status="failed") for r in (0.1, 0.2, 0.3)])


def test_a_rate_that_failed_is_named_by_what_was_asked() -> None:
    failed = pruned(None, 2.0, rate=2.5, sparsity=None, status="failed", error="no | luck")
    rows = [pruned(None, 2.0, rate=rate, sparsity=rate / 4) for rate in (1.0, 2.0)]
    shown = squeezed(rendered([*rows, failed], rows=True))
    assert "25.0% 50.0% holds" in shown
    assert "swe ▼.070 ▼.070 50.0%" in shown
    assert "50.0% 4.0000 0.5000 2.0000 [1.9950, 2.0050] −0.0700 [−0.0750, −0.0650] ▼" in shown
    assert "Fewer seeds than elsewhere: swe at 2.5 (0 of 1)." in shown


def test_a_row_is_labels_and_values() -> None:
    file = StringIO()
    print_row(Console(width=80, file=file), pruned(0.6, 1.91, axes={"tracking.every": 10}))
    rows = squeezed(file.getvalue())
    assert "ratio 0.6" in rows
    assert "tracking.every 10" in rows
    assert "loss 1.9100 nats [1.9050, 1.9150]" in rows
    assert "delta −0.1600 nats [−0.1650, −0.1550]" in rows
    assert not any(row.startswith("perplexity") for row in rows)


def test_a_failed_row_says_why() -> None:
    file = StringIO()
    print_row(Console(width=80, file=file), pruned(0.6, 1.9, status="failed", error="x " * 90))
    assert "failed" in file.getvalue()
    assert "nats" not in file.getvalue()
    assert max(map(len, file.getvalue().splitlines())) <= 80
