"""Toy rows whose windows are known, so that every difference is worked out by hand."""

import csv
import math
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console
from scipy.stats import false_discovery_control, ttest_1samp

from swe_cli.evaluation.loss import Measured
from swe_cli.records import Row
from swe_cli.report.against import Compared, compare_with, present_against, verdict
from swe_cli.report.inference import detectable

from .toys import changed, controls, pruned, summed

TOKENS = np.array([1, 3])
BASE = np.array([2.0, 6.0])  # 2 nats per token in both windows


def losses(nats: Sequence[float]) -> Measured:
    return {"nats": BASE + np.array(nats), "tokens": TOKENS}


class Book:
    """Rows, and their windows above 2 nats per token, after and before recovery."""

    def __init__(self) -> None:
        self.rows: list[Row] = controls()
        self.windows: dict[str, tuple[Measured, Measured]] = {}

    def add(
        self,
        criterion: str,
        ratio: float | None,
        after: Sequence[float] = (0, 0),
        before: Sequence[float] = (0, 0),
        **changes: object,
    ) -> "Book":
        name = f"{criterion}-{len(self.rows)}"
        self.rows.append(pruned(ratio, 2.0, criterion=criterion, config_hash=name, **changes))
        self.windows[name] = losses(after), losses(before)
        return self

    def compared(self, criterion: str = "magnitude") -> list[Compared]:
        return compare_with(summed(self.rows), criterion, self.windows.__getitem__)

    def presented(
        self, folder: Path, criterion: str = "magnitude", **published: str
    ) -> tuple[str, Path, Path]:
        """What is printed, the table and the page."""
        console, summary = (
            Console(width=80, file=StringIO()),
            summed(self.rows, published=published),
        )
        windows = self.windows.__getitem__
        table, page = present_against(console, [summary], criterion, windows, folder)
        return console.file.getvalue(), table, page  # type: ignore[attr-defined]


def after(cut: dict[str, Any]) -> tuple[float, ...]:
    return cut["difference_nats"], cut["difference_low"], cut["difference_high"]


def before(cut: dict[str, Any]) -> tuple[float, ...]:
    return tuple(cut[f"difference_before_recovery_{end}"] for end in ("nats", "low", "high"))


def line(
    book: Book, criterion: str, shifts: Mapping[float, Sequence[float]], **changes: object
) -> Book:
    for ratio, shift in shifts.items():
        book.add(criterion, ratio, shift, **changes)
    return book


SURE_BETTER, SURE_WORSE, EITHER = (-0.5, -1.5), (0.25, 0.75), (-1.0, 3.0)


def test_one_seed_is_paired_over_its_windows() -> None:
    book = Book().add("magnitude", 0.5, (1, 3), (0, 0))
    book.add("swe", 0.5, (0.5, 1.5), (-1, 3))
    (compared,) = book.compared()
    (found,) = compared.cuts
    assert (compared.name, found["seeds"]) == ("magnitude", 1)
    # −0.5 of 1 token and −1.5 of 3: −0.5 nats per token in every window, however they are drawn.
    assert (*after(found), found["interval"]) == (-0.5, -0.5, -0.5, "windows")
    # −1 of 1 token and +3 of 3: (3 − 1) / 4, and from −1 (only the first) to 1 (only the second).
    assert before(found) == (0.5, -1.0, 1.0)
    assert verdict(compared) == "ahead at every ratio"


def test_several_seeds_have_a_t_interval_over_their_differences() -> None:
    book = Book()
    for seed, shift in enumerate((1.0, 2.0, 3.0)):
        # The level differs by seed far more than the criteria do; pairing takes it out.
        level = 10.0 * seed
        book.add("magnitude", 0.5, (level, 3 * level), seed=seed)
        book.add("swe", 0.5, (level + shift, 3 * (level + shift)), seed=seed)
    (compared,) = book.compared()
    (found,) = compared.cuts
    assert (found["seeds"], found["interval"]) == (3, "seeds")
    half = 4.302652729911275 / 3**0.5  # t(0.975, 2) · s / √3, s = 1
    assert after(found) == pytest.approx((2.0, 2 - half, 2 + half))
    assert verdict(compared) == "undecided at every ratio"


def test_a_difference_is_marked_by_its_q_value_and_says_what_could_be_seen() -> None:
    """At 0.5 p is 0.04 alone, and no discovery among ten that are nothing."""
    book = Book()
    for seed, (big, small) in enumerate(((0.9, 0.01), (1.0, -0.02), (1.5, 0.01))):
        book.add("magnitude", 0.5, seed=seed).add("swe", 0.5, (big, 3 * big), seed=seed)
        for place in range(10):
            ratio = 0.6 + place / 100
            book.add("magnitude", ratio, seed=seed).add("swe", ratio, (small, 3 * small), seed=seed)
    (compared,) = book.compared()
    p = [ttest_1samp(of, 0).pvalue for of in ([0.9, 1.0, 1.5], *[[0.01, -0.02, 0.01]] * 10)]
    q = false_discovery_control(p)
    assert [cut["difference_q"] for cut in compared.cuts] == pytest.approx(list(q))
    assert p[0] < 0.05 < q[0]
    assert verdict(compared) == "undecided at every ratio"
    seen = [cut["detectable_nats"] for cut in compared.cuts]
    # 0.5 and 0.6 share their spread; beyond, each has its own.
    mild = math.sqrt((np.var([0.9, 1.0, 1.5], ddof=1) + 0.0003) / 2)
    assert seen[:3] == pytest.approx([detectable(sd, 3) for sd in (mild, mild, 0.0003**0.5)])
    assert (
        compared.sentence
        == "swe: undecided at every ratio; alone, each could have seen 0.057 to 0.743 nats."
    )


def test_the_same_models_are_identical_and_are_not_tested() -> None:
    book = Book().add("magnitude", 0.5).add("swe", 0.5).add("random", 0.5, (1, 3))
    book.add("magnitude", 0.7).add("swe", 0.7, (1, 3)).add("random", 0.7, (2, 6))
    found = {one.line.criterion: one for one in book.compared()}
    assert verdict(found["swe"]) == "behind at 0.7, identical at 0.5"
    assert found["swe"].cuts[0]["difference_q"] is None
    # What is one line with magnitude's is still what the others are compared with.
    for place, row in enumerate(book.rows):
        if row.settings.get("criterion") in ("swe", "magnitude"):
            book.rows[place] = changed(row, loss_before_recovery_nats=4.0)
    sentences = [one.sentence for one in book.compared()]
    assert "swe = magnitude: identical, the very same models." in sentences
    assert "random: behind at every ratio." in sentences


def test_no_loss_before_recovery_is_no_difference_before_it() -> None:
    # Where recovery lies between cuts, what is stored before it is no such loss.
    book = Book().add("magnitude", 0.5).add("swe", 0.5, (1, 3), loss_before_recovery_nats=None)
    (found,) = book.compared()[0].cuts
    assert after(found)[0] == 1.0
    assert before(found) == (None, None, None)


def test_only_seeds_of_both_are_paired_and_a_failed_cut_is_not_compared() -> None:
    book = Book().add("magnitude", 0.5, seed=0).add("swe", 0.5, (1, 3), seed=0)
    book.add("swe", 0.5, (5, 15), seed=1)
    (found,) = book.compared()[0].cuts
    assert (found["seeds"], found["difference_nats"]) == (1, 1.0)
    book.add("swe", 0.5, seed=2, status="failed", error="lost")
    (compared,) = book.compared()
    assert compared.cuts[0]["difference_nats"] is None
    assert verdict(compared) == "not compared at every ratio"


def test_the_same_allocation_is_compared_where_it_exists_else_which_is_said() -> None:
    book = Book()
    book.add("magnitude", 0.5, (1, 3), allocation="global")
    book.add("magnitude", 0.5, (2, 6), allocation="uniform")
    for allocation in ("global", "uniform", "row"):
        book.add("swe", 0.5, (4, 12), allocation=allocation)
    found = {
        one.line.points[0]["allocation"]: (one.cuts[0]["difference_nats"], one.name)
        for one in book.compared()
    }
    assert found == {
        "global": (3.0, "magnitude"),
        "uniform": (2.0, "magnitude"),
        "row": (3.0, "magnitude (allocation global)"),
    }


@pytest.mark.parametrize(
    "other",
    [
        {"base": "averaged"},
        {"pattern": "2of4"},
        {"prunable": "all"},
        {"recovery": "none"},
        {"roles": "vision"},
        {"schedule": "gradual"},
        {"fuse": 0.75},
        {"axes": {"recovery.steps": 5}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_setting_is_not_compared(other: dict[str, object]) -> None:
    (found,) = Book().add("magnitude", 0.5).add("swe", 0.5, **other).compared()
    assert (found.other, found.name, found.cuts) == (None, None, [])


def test_options_that_only_one_of_the_two_has_are_no_other_setting() -> None:
    book = Book().add("magnitude", 0.5)
    book.add("stability", 0.5, (1, 3), axes={"criterion.epsilon": 0.1})
    (found,) = book.compared()
    assert found.name == "magnitude"
    assert found.cuts[0]["difference_nats"] is not None
    book = Book().add("wanda", 0.5, axes={"calibration.samples": 64})
    (found,) = book.add("swe", 0.5).compared("wanda")
    assert found.name == "wanda (calibration.samples 64)"


def test_rates_are_compared_with_rates() -> None:
    book = Book().add("magnitude", None, (1, 3), rate=1.5).add("swe", None, rate=1.5)
    book.add("swe", 0.5)
    by_ratio, by_rate = sorted(book.compared(), key=lambda one: one.line.by, reverse=True)
    assert [cut["rate"] for cut in by_rate.cuts] == [1.5]
    assert (by_ratio.line.by, by_ratio.name) == ("ratio", None)


@pytest.mark.parametrize(
    ("shifts", "words"),
    [
        (
            {0.3: SURE_WORSE, 0.5: SURE_WORSE, 0.6: EITHER, 0.7: SURE_BETTER, 0.9: SURE_BETTER},
            "ahead at 0.7–0.9, behind at 0.3–0.5, undecided elsewhere",
        ),
        (
            {0.1: SURE_BETTER, 0.3: SURE_WORSE, 0.5: SURE_BETTER, 0.7: SURE_BETTER},
            "ahead at 0.1 and 0.5–0.7, behind at 0.3",
        ),
        ({0.1: SURE_BETTER, 0.3: SURE_BETTER}, "ahead at every ratio"),
        ({0.1: EITHER, 0.3: EITHER}, "undecided at every ratio"),
        ({0.1: EITHER, 0.95: EITHER}, "not compared at 0.95, undecided elsewhere"),
        ({0.95: EITHER}, "not compared at every ratio"),
    ],
)
def test_the_verdict_in_words(shifts: Mapping[float, Sequence[float]], words: str) -> None:
    book = line(Book(), "magnitude", dict.fromkeys((0.1, 0.3, 0.5, 0.6, 0.7, 0.9), (0, 0)))
    (compared,) = line(book, "swe", shifts).compared()
    assert verdict(compared) == words


def many() -> Book:
    book, ratios = Book(), [round(0.1 * tenth, 1) for tenth in range(1, 10)]
    for allocation in ("global", "uniform"):
        flat = dict.fromkeys(ratios, (0, 0))
        line(book, "magnitude", flat, allocation=allocation)
        line(book, "mean_magnitude", dict.fromkeys(ratios, SURE_WORSE), allocation=allocation)
        line(book, "swe", dict.fromkeys(ratios, SURE_BETTER), allocation=allocation)
    return book.add("swe", 0.5, base="averaged").add("swe", None, allocation="own")


def test_the_terminal_shows_both_stages_and_a_verdict_a_line(tmp_path: Path) -> None:
    text, _, _ = many().presented(tmp_path)
    assert max(map(cell_len, text.splitlines())) <= 80
    assert "mean_magnitude, uni…, fin…" in text
    rows = [" ".join(row.split()) for row in text.splitlines()]
    assert "Loss after recovery, less magnitude's (nats per token)" in rows
    assert "Loss before recovery, less magnitude's (nats per token)" in rows
    assert any(row.startswith("swe, global, final ▼.500 ▼.500") for row in rows)
    assert any(row.startswith("swe, global, final .000 .000") for row in rows)
    said = " ".join(text.split())
    assert "mean_magnitude (allocation uniform, base final): behind at every ratio." in said
    assert said.count("not compared, no line of it has the same settings") == 2
    assert "Exploratory: ▼ ahead of magnitude, ▲ behind where q < 0.05" in said
    assert "over 36 differences); paired 95% interval over test windows of this training" in said


def test_the_files_hold_every_difference(tmp_path: Path) -> None:
    book = Book().add("magnitude", 0.5, (1, 3)).add("swe", 0.5, (0.5, 1.5), (-1, 3))
    _, table, page = book.presented(tmp_path)
    assert [table.name, page.name] == ["against-magnitude.csv", "against-magnitude.md"]
    with table.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert {key: row[key] for key in ("criterion", "compared_with", "ratio", "seeds")} == {
        "criterion": "swe",
        "compared_with": "magnitude",
        "ratio": "0.5",
        "seeds": "1",
    }
    assert [row[f"difference_{end}"] for end in ("nats", "low", "high")] == ["-0.5"] * 3
    ends = [row[f"difference_before_recovery_{end}"] for end in ("nats", "low", "high")]
    assert ends == ["0.5", "-1.0", "1.0"]
    text = page.read_text()
    assert "| swe | ▼.500 |" in text
    assert "| swe | +.500 |" in text
    assert "- swe: ahead at every ratio." in text


def test_columns_stand_from_mild_to_hard_ratios_first_whichever_line_has_them(
    tmp_path: Path,
) -> None:
    book = Book()
    for criterion, ratios in (("magnitude", (0.1, 0.5, 0.9)), ("a", (0.1, 0.9)), ("swe", (0.5,))):
        book.add(criterion, None, rate=1.0)
        line(book, criterion, dict.fromkeys(ratios, (0, 0)))
    _, _, page = book.presented(tmp_path)
    text = page.read_text()
    assert "|  | 0.1 | 0.5 | 0.9 | rate 1 |" in text
    assert "| swe, ratio | – | .000 | – | – |" in text


def test_a_line_whose_mildest_cut_failed_is_of_the_same_protocol(tmp_path: Path) -> None:
    book = Book().add("magnitude", 0.1).add("magnitude", 0.5).add("swe", 0.5)
    book.add("swe", 0.1, status="failed", error="lost", fingerprint="")
    _, table, page = book.presented(tmp_path)
    with table.open(newline="") as file:
        assert {row["fingerprint"] for row in csv.DictReader(file)} == {"f1"}
    assert "Protocol f1." in page.read_text()


def test_one_criterion_alone_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    text, table, page = Book().add("swe", 0.5).presented(tmp_path, "swe")
    assert table.read_text().strip() == page.read_text() == text == ""


def test_a_foreign_allocation_is_said_where_the_verdict_is(tmp_path: Path) -> None:
    book = Book().add("wanda", 0.5, (1, 3)).add("swe", 0.5)
    said = "wanda ran with allocation global; published with row."
    text, _, page = book.presented(tmp_path, "wanda", wanda="row")
    assert said in text
    assert said in page.read_text()
    _, _, page = book.presented(tmp_path, "wanda", wanda="global")
    assert "published" not in page.read_text()


def test_a_report_against_a_criterion(swe, own_run) -> None:
    made = swe("prune", "-q", "--ratio", "0.5", "recovery.steps=2", "criterion=magnitude")
    assert made.exit_code == 0, made.output
    made = swe("prune", "-q", "--ratio", "0.5", "recovery.steps=2", "criterion=random")
    assert made.exit_code == 0, made.output
    shown = swe("report", own_run.name, "--against", "magnitude", "--output", "out")
    assert shown.exit_code == 0, shown.output
    assert "Loss after recovery, less magnitude's" in shown.stdout
    with (Path("out") / "against-magnitude.csv").open(newline="") as file:
        found = {row["criterion"]: row for row in csv.DictReader(file)}
    with (Path("out") / "table.csv").open(newline="") as file:
        rows = {row["criterion"]: row for row in csv.DictReader(file) if row["criterion"]}
    assert found.keys() == {"random", "swe"}
    for name, row in found.items():
        for column in ("loss_nats", "loss_before_recovery_nats"):
            stage = "_before_recovery" if "before" in column else ""
            wanted = float(rows[name][column]) - float(rows["magnitude"][column])
            assert float(row[f"difference{stage}_nats"]) == pytest.approx(wanted, abs=1e-9)


def test_an_unknown_criterion_is_refused_before_anything_is_written(swe, own_run) -> None:
    refused = swe("report", own_run.name, "--against", "magnitude", "--output", "out")
    assert refused.exit_code == 2
    assert "no row is of that criterion" in refused.stderr
    assert "Criteria of these rows: swe." in refused.stderr
    assert not Path("out").exists()


def test_windows_that_are_gone_are_named(swe, own_run) -> None:
    made = swe("prune", "-q", "--ratio", "0.5", "recovery.steps=2", "criterion=magnitude")
    assert made.exit_code == 0, made.output
    for path in (own_run.results / "runs" / "cells").glob("*/windows.safetensors"):
        path.unlink()
    refused = swe("report", own_run.name, "--against", "magnitude")
    assert refused.exit_code == 1
    assert "windows.safetensors is gone" in refused.stderr
