"""Declared comparisons of toy rows, against scipy's paired t test and Holm's steps by hand."""

import math
from dataclasses import replace
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import nct, t, ttest_rel

from swe_cli.config import Declaration
from swe_cli.errors import UsageError
from swe_cli.records import Row
from swe_cli.report.compare import check_declared, compared, holm, present_declared
from swe_cli.report.inference import seeds_for
from swe_cli.report.tables import frame

from .toys import controls, pruned

SEEDS, RATIOS = range(5), (0.7, 0.8)
LOSSES = {  # by criterion and allocation: what is added to 2 at 70 % and at 80 %, and per seed
    ("mine", "global"): (0.00, 0.10, [0.00, 0.01, 0.02, 0.03, 0.04]),
    ("rival", "global"): (0.05, 0.11, [0.00, 0.02, 0.01, 0.03, 0.05]),
    ("rival", "uniform"): (0.20, 0.30, [0.01, 0.00, 0.03, 0.02, 0.04]),
}
DECLARED = Declaration(
    line={"criterion": "mine", "allocation": "global"},
    primary={"criterion": "rival"},
    secondary=[{"criterion": "rival", "allocation": "uniform"}, {"allocation": "global"}],
    ratios=list(RATIOS),
    of="loss_calibrated_nats",
)


def rows(seeds=SEEDS) -> list[Row]:
    return [
        *controls(),
        *(
            pruned(
                ratio,
                2.5,
                criterion=criterion,
                allocation=allocation,
                seed=seed,
                config_hash=f"{criterion}{allocation}{ratio}{seed}",
                measures={"loss_calibrated_nats": 2 + at[place] + at[2][seed]},
            )
            for (criterion, allocation), at in LOSSES.items()
            for place, ratio in enumerate(RATIOS)
            for seed in seeds
        ),
    ]


def values(criterion, allocation, place):
    at = LOSSES[criterion, allocation]
    return 2 + at[place] + np.array(at[2])


def test_it_is_the_paired_t_test_with_holms_steps():
    found = compared(frame(rows()), DECLARED)
    assert found["family"].tolist() == ["primary"] * 2 + ["secondary"] * 4
    for place, row in enumerate(found.iloc[:2].to_dict("records")):
        one, other = values("mine", "global", place), values("rival", "global", place)
        expected = ttest_rel(one, other)
        assert row["p"] == pytest.approx(expected.pvalue)
        low, high = expected.confidence_interval(0.95)
        assert (row["difference_low"], row["difference_high"]) == pytest.approx((low, high))
        assert row["difference_nats"] == pytest.approx((one - other).mean())
        assert (row["loss_nats"], row["other_nats"]) == pytest.approx((one.mean(), other.mean()))
        assert (row["seeds"], row["ratio"]) == (5, RATIOS[place])
    small, large = sorted(found["p"][:2])
    assert sorted(found["p_holm"][:2]) == pytest.approx([2 * small, max(2 * small, large)])


def test_what_could_be_seen_is_seen_four_times_of_five():
    row = compared(frame(rows()), DECLARED).iloc[0]
    differences = values("mine", "global", 0) - values("rival", "global", 0)
    error = differences.std(ddof=1) / math.sqrt(5)
    critical = t.ppf(1 - 0.05 / 2 / 2, 4)  # of two tests the strictest
    beyond = nct.sf(critical, 4, row["detectable_nats"] / error)
    assert beyond == pytest.approx(0.8, abs=1e-6)


def test_a_line_of_two_settings_is_refused_even_where_no_seed_has_both():
    moved = [
        replace(r, settings={**r.settings, "base": "averaged"}) if r.seed > 2 else r for r in rows()
    ]
    with pytest.raises(UsageError, match="several lines are mine, allocation global; they differ"):
        check_declared(frame(moved), DECLARED)


def test_mild_cuts_share_their_spread_and_it_is_said_how_many_seeds_a_hundredth_takes():
    mild = [
        replace(r, settings={**r.settings, "ratio": r.settings["ratio"] - 0.3})
        if "ratio" in r.settings
        else r
        for r in rows()
    ]
    near = [round(ratio - 0.3, 1) for ratio in RATIOS]
    mild = [
        replace(r, settings={**r.settings, "ratio": round(r.settings["ratio"], 1)})
        if "ratio" in r.settings
        else r
        for r in mild
    ]
    found = compared(frame(mild), Declaration(**{**DECLARED, "ratios": near}))
    hard = compared(frame(rows()), DECLARED)
    for of in (found, hard):
        level = [0.05 / 2] * 2 + [0.05 / 4] * 4
        wanted = [seeds_for(sd, 0.01, at) for sd, at in zip(of["sd_nats"], level, strict=True)]
        assert of["seeds_for"].tolist() == wanted
    assert found["sd_nats"][0] == found["sd_nats"][1]
    pooled = np.mean(hard["sd_nats"][:2] ** 2) ** 0.5
    assert found["sd_nats"][0] == pytest.approx(pooled)


def test_holm_by_hand():
    p = pd.Series([0.04, 0.01, math.nan, 0.02], index=list("abcd"))
    assert holm(p)["b"] == pytest.approx(0.04)  # 4 · 0.01: what was not tested counts
    assert holm(p)["d"] == pytest.approx(0.06)
    assert holm(p)["a"] == pytest.approx(0.08)
    assert holm(pd.Series([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_a_line_against_itself_and_of_one_seed_is_not_tested():
    itself = compared(frame(rows()), DECLARED).iloc[-1]
    assert itself["difference_nats"] == 0
    assert math.isnan(itself["p"])
    one = compared(frame(rows([3])), DECLARED).iloc[0]
    assert one["seeds"] == 1
    assert one["difference_nats"] == pytest.approx(-0.05)
    assert math.isnan(one["p"])
    assert math.isnan(one["difference_low"])


def test_only_seeds_that_both_have_are_paired():
    some = [r for r in rows() if not (r.settings.get("criterion") == "rival" and r.seed == 4)]
    assert compared(frame(some), DECLARED)["seeds"].tolist() == [4, 4, 4, 4, 5, 5]


def test_a_line_can_be_the_one_without_a_setting():
    """Where ``update`` is none, a row has no such setting."""
    both = rows()
    both += [replace(r, settings={**r.settings, "update": "mine"}) for r in both]
    without = {**DECLARED["line"], "update": None}
    primary = {"update": "mine"}
    declared = Declaration(**{**DECLARED, "line": without, "primary": primary, "secondary": []})
    check_declared(frame(both), declared)
    found = compared(frame(both), declared)
    assert (found["difference_nats"] == 0).all()
    assert found["against"].tolist() == ["update mine"] * 2
    with pytest.raises(UsageError, match="several lines are mine, allocation global; they differ"):
        check_declared(frame(both), DECLARED)


def test_rows_of_two_protocols_are_never_paired():
    moved = [
        replace(r, fingerprint="other") if r.settings.get("criterion") == "rival" else r
        for r in rows()
    ]
    found = compared(frame(moved), DECLARED)
    assert found["seeds"].tolist() == [0, 0, 0, 0, 5, 5]
    assert found["difference_nats"].isna().tolist() == [True] * 4 + [False] * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"primary": {"criterion": "other"}}, "no row is of other, allocation global at ratio 0.7"),
        ({"ratios": [0.7, 0.75]}, "no row is of mine, allocation global at ratio 0.75"),
        ({"primary": {"criterion": "rival", "tracking.every": 2}}, "these rows have no tracking"),
        ({"line": {"criterion": "rival"}}, "several lines are rival; they differ in allocation"),
    ],
)
def test_what_the_rows_cannot_answer_is_refused(changes, message):
    declared = Declaration(**{**DECLARED, **changes})
    with pytest.raises(UsageError, match=message):
        check_declared(frame(rows()), declared)


def test_the_page_fits_and_says_when_it_was_declared(tmp_path):
    stored = {
        "declared": DECLARED,
        "written": "2026-01-02T03:04:05+00:00",
        "commit": "abc",
        "done": 0,
        "cells": 30,
    }
    console = Console(width=80, record=True, file=StringIO())
    written = present_declared(console, frame(rows()), stored, tmp_path)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    said = " ".join(text.split())
    assert "Declared 2026-01-02 03:04 at commit abc, when 0 of its 30 cuts" in said
    assert [path.name for path in written] == ["compare.csv", "compare.md"]
    assert "| 0.7 | 5 | 2.020 | 2.072 | -0.052 [-0.062, -0.042] |" in written[1].read_text()
    assert len(pd.read_csv(written[0])) == 6
