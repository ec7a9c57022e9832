"""Which run a command takes where none is named, and that it says so."""

import pytest

from swe_cli.commands.shared import Page
from swe_cli.errors import RunError, TrainingError

from .test_runs import make_run

EARLIER, LATER = (f"2026-01-0{day}T00:00:00+00:00" for day in (1, 2))


@pytest.fixture
def chosen(tmp_path):
    def choose(*words, quiet=False):
        this = Page("prune", [*words, f"results_dir={tmp_path}"])
        return this.chosen_run(("train",), "Cutting", otherwise="Train one.", quiet=quiet).name

    return choose


def test_the_newest_is_taken_and_that_is_said(tmp_path, chosen, capsys):
    make_run(tmp_path, "train-a-1", written=LATER)
    make_run(tmp_path, "train-b-1", written=EARLIER)
    make_run(tmp_path, "prune-c-1", written=LATER)
    assert chosen() == "train-a-1"
    assert capsys.readouterr().err == "Cutting train-a-1 (the newest)\n"
    assert chosen(quiet=True) == "train-a-1"
    assert capsys.readouterr().err == ""
    assert chosen("train-b") == "train-b-1"
    assert capsys.readouterr().err == "Cutting train-b-1\n"


@pytest.mark.parametrize("quiet", [False, True])
def test_one_that_is_not_the_newest_is_always_said_with_the_reason(quiet, tmp_path, chosen, capsys):
    make_run(tmp_path, "train-a-1", written=EARLIER)
    make_run(tmp_path, "train-b-1", "running", written=LATER)
    assert chosen(quiet=quiet) == "train-a-1"
    assert capsys.readouterr().err == (
        "Cutting train-a-1 (the newest that is finished: train-b-1 is stopped)\n"
    )


def test_without_a_finished_one_the_next_move_is_told(tmp_path, chosen):
    make_run(tmp_path, "train-b-1", "running")
    with pytest.raises(RunError, match=r"No finished train run in .* Train one\."):
        chosen()


def test_after_a_training_that_diverged_prune_says_what_it_cuts_instead(swe, own_run, tiny_words):
    words = ("training.learning_rate=1e30", "training.optimizer=adam", "training.steps=20")
    tiny = (word for word in tiny_words if not word.startswith("training.steps"))
    assert swe("train", *tiny, *words).exit_code == TrainingError.exit_code
    cut = swe("prune", "-q", "--ratio", "0.5", "recovery.steps=2")
    assert cut.exit_code == 0
    assert f"Cutting {own_run.name} (the newest that is finished: train-" in cut.stderr
