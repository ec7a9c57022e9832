"""Cuts in the middle of training, and what there is of it: kept, renewed, missing, empty."""

import pytest
from training import toys
from training.toys import Silent, sweep_of, write_text

from swe_cli.errors import RunError, UsageError
from swe_cli.report.summary import summarise
from swe_cli.report.tables import frame

EARLY = ("schedule=early", "schedule.at_step=3", "ratio=0.5")


@pytest.fixture
def swept(tmp_path):
    """Run a sweep; its rows of cut models, its outcome and what was said."""
    text = write_text(tmp_path)

    def run(*words):
        plan = sweep_of(text, tmp_path, "training.steps=6", "recovery=none", *words)
        observer = Silent()
        outcome = toys.swept(plan, observer=observer)
        return [row for row in outcome.rows if row.kind == "pruned"], outcome, observer

    return run


def test_a_snapshot_without_a_statistic_that_is_wanted_now_is_made_anew_and_that_is_said(swept):
    (first,), outcome, _ = swept(*EARLY, "criterion=swe")
    assert (first.status, outcome.trained) == ("done", 1)
    (row,), outcome, observer = swept(*EARLY, "criterion=stability")
    assert (row.status, row.error, outcome.trained) == ("done", None, 1)
    assert observer.said == [
        f"{row.training} did not record weighted_variance, a snapshot of step 3: training it again."
    ]
    (again,), outcome, observer = swept(*EARLY, "criterion=swe")
    assert (again, outcome.trained, observer.said) == (first, 0, [])
    (row,), outcome, observer = swept("criterion=stability", "ratio=0.5")  # of the end: all there
    assert (row.status, outcome.trained, observer.said) == ("done", 0, [])


def test_a_snapshot_is_made_anew_for_a_statistic_that_the_run_itself_has(swept):
    """One that was kept before the training was repeated for a cut at its end."""
    swept(*EARLY, "criterion=swe")
    swept("criterion=stability", "ratio=0.5")
    (row,), _, _ = swept(*EARLY, "criterion=stability")
    assert (row.status, row.error) == ("done", None)


def test_an_early_cut_that_fails_is_a_row_of_its_own_beside_a_one_shot_cut_that_does_not(swept):
    rows, outcome, _ = swept(
        "criteria=swe,magnitude", "schedules=one_shot,early", "schedule.at_step=1", "ratio=0.5",
        "fuse=0.9", "tracking.start=2",
    )  # fmt: skip
    assert {
        (row.settings.get("criterion"), row.settings.get("schedule")): row.status for row in rows
    } == {
        ("swe", None): "done",
        ("swe", "early"): "failed",
        ("magnitude", None): "done",
        ("magnitude", "early"): "done",
    }
    assert {row.settings["fuse"] for row in rows} == {0.9}
    lines = summarise(frame(outcome.rows)).lines
    failed = {(line.criterion, bool(point["failed"])) for line in lines for point in line.points}
    assert failed == {("swe", False), ("swe", True), ("magnitude", False)}
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("words", "by"),
    [
        (("criterion=random", "allocation=like"), "swe"),
        (("criterion=random", "allocation=like", "allocation.criterion=stability"), "stability"),
        (("criterion=net_movement",), "net_movement"),
    ],
)
def test_before_the_first_observation_there_is_nothing_to_judge_by_and_that_is_one_sentence(
    swept, words, by
):
    early = ("schedule=early", "schedule.at_step=1", "tracking.start=2")
    (row,), _, _ = swept(*early, "ratio=0.5", *words)
    assert row.status == "failed"
    assert row.error.startswith(f"criterion={by} judges by ")
    assert row.error.endswith(", and by step 1 nothing had been observed.")
    assert len(row.error.split(". ")) == 1


@pytest.mark.parametrize("words", [("criterion=swe",), ("criterion=random", "allocation=like")])
def test_before_the_first_step_what_judges_by_lived_weights_is_refused(swept, words):
    early = ("schedule=early", "schedule.at_step=0", "ratio=0.5")
    with pytest.raises(UsageError, match=f"{words[0]} or its allocation judges by how weights"):
        swept(*early, *words)
    (row,), _, _ = swept(*early, "criterion=random", "allocation=uniform")
    assert (row.status, row.mean("sparsity")) == ("done", 0.5)


def test_prune_of_a_step_that_was_not_kept_says_so_and_leaves_no_run(swe, own_run):
    before = sorted(path.name for path in (own_run.results / "runs").iterdir())
    found = swe("prune", own_run.name, "--ratio", "0.5", "schedule=early", "schedule.at_step=2")
    assert found.exit_code == RunError.exit_code
    assert "did not keep what it was after step 2" in found.output
    assert "tracking.snapshots=[2]" in found.output
    assert sorted(path.name for path in (own_run.results / "runs").iterdir()) == before
