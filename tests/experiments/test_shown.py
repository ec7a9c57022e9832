"""A tracker is shown every step once, whatever stops in between, and never fails a run."""

import json
import shutil
import sys
from collections import Counter

import pytest
from training.toys import After, run_of, spec_of, trained, write_text

from swe_cli.config import Component
from swe_cli.errors import Interrupted, UsageError
from swe_cli.experiments import shown as showing
from swe_cli.experiments.shown import Shown, shown
from swe_cli.store import Run

OWN = '''
from pathlib import Path

WHERE = Path(__file__).with_name("seen.txt")


class Writing:
    """Writes down what it is shown."""

    def start(self, name, folder, config, step):
        self.write(f"start {step}")

    def write(self, line):
        with WHERE.open("a") as file:
            file.write(line + "\\n")

    def log(self, points):
        for step, metrics in points:
            self.write(f"step {step} {metrics['loss_nats']}")

    def table(self, path):
        print("a greeting")
        self.write(f"table {path.name}")

    def finish(self):
        self.write("finish")


class Failing(Writing):
    def log(self, points):
        raise ConnectionError("nobody\\nanswers")
'''


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder of trackers of one's own, and what they were shown."""
    package = f"own{tmp_path.name.replace('-', '_')}"
    (tmp_path / package).mkdir()
    (tmp_path / package / "trackers.py").write_text(OWN)
    folder = tmp_path / "myconf" / "tracker"
    folder.mkdir(parents=True)
    for name in ("Writing", "Failing"):
        (folder / f"{name.lower()}.yaml").write_text(f"_target_: {package}.trackers.{name}\n")
    seen = tmp_path / package / "seen.txt"
    return tmp_path / "myconf", lambda: seen.read_text().splitlines() if seen.exists() else []


class Remembering:
    """Keeps the steps it was shown, as long as the process lives."""

    def __init__(self):
        self.steps, self.runs = [], 0

    def start(self, name, folder, config, step):
        self.runs += 1

    def log(self, points):
        self.steps += [step for step, _ in points]

    def finish(self): ...


def of(tracker, name="own"):
    return Component("tracker", name, lambda: tracker, {})


def test_a_run_that_is_stopped_anywhere_shows_each_step_once(text, tmp_path, monkeypatch):
    monkeypatch.setattr(showing, "SECONDS", 0.0)  # after every step
    show = Shown.show
    for stop_at in (1, 3, 5, 7):
        spec, tracker = spec_of(text), Remembering()
        spec.composed.components["tracker"] = of(tracker)
        results = tmp_path / str(stop_at)
        with monkeypatch.context() as killed:
            killed.setattr(
                Shown, "show", lambda self, last=False: last or show(self)
            )  # as a kill would
            with pytest.raises(Interrupted):
                trained(spec, results, After(stop_at))
        run = run_of(spec, results)
        shutil.rmtree(run.path / "checkpoints")  # and it starts from nothing
        trained(spec, results)
        assert tracker.steps == [1, 2, 3, 4, 5, 6, 7, 8], stop_at
        trained(spec, results)
        with shown(of(tracker), run):
            pass
        assert len(tracker.steps) == 8


def test_each_tracker_is_shown_a_run_and_none_makes_it_another(text, tmp_path):
    spec = spec_of(text)
    assert spec.run == spec_of(text, "tracker=tensorboard").run
    for name in ("one", "other", "one"):
        spec.composed.components["tracker"] = of(tracker := Remembering(), name)
        run = trained(spec, tmp_path)
    assert (tracker.runs, tracker.steps) == (0, [])
    assert json.loads((run.path / "shown.json").read_text()) == {"one": 8, "other": 8}


def test_a_sweep_shows_its_trainings_and_its_table_once(swe, own, tiny_words):
    folder, seen = own
    words = ["--config-dir", folder, "tracker=writing", *tiny_words, "recovery.steps=2"]
    words += ["criterion=magnitude", "ratio=0.5"]
    done = swe("sweep", *words)
    assert done.exit_code == 0, done.output
    assert "a greeting" not in done.stdout
    lines = seen()
    assert Counter(line.split()[0] for line in lines) == {
        "start": 2,
        "step": 4,
        "finish": 2,
        "table": 1,
    }
    assert swe("sweep", *words).exit_code == 0
    assert seen() == lines


def test_a_tracker_that_fails_is_one_sentence_and_the_run_is_the_same(swe, own, tiny_words):
    folder, seen = own
    done = swe("train", "-q", "--config-dir", folder, "tracker=failing", *tiny_words)
    assert done.exit_code == 0
    said = "tracker=failing failed, the run goes on. ConnectionError: nobody answers"
    assert done.stderr.count("tracker=failing") == 1
    assert said in done.stderr
    assert seen() == ["start 1"]
    plain = swe("train", "-q", *tiny_words, "results_dir=other")
    assert plain.stdout.split()[0] == done.stdout.split()[0]
    assert swe("train", "-q", "--config-dir", folder, "tracker=writing", *tiny_words).exit_code == 0
    assert [line.split()[0] for line in seen()[1:]] == ["start", *["step"] * 4, "finish"]


def test_a_missing_package_says_what_to_install(swe, tiny_words, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    done = swe("train", "-q", "tracker=wandb", *tiny_words)
    assert done.exit_code == 0
    assert "pip install 'swe-cli[wandb]'" in done.stderr


def test_a_tracker_that_lacks_something_is_refused_before_anything_runs(text, tmp_path):
    spec = spec_of(text)
    spec.composed.components["tracker"] = of(object())
    with pytest.raises(UsageError, match="no Tracker: it lacks start, log, finish"):
        trained(spec, tmp_path)
    assert not run_of(spec, tmp_path).exists


def test_tensorboard_holds_every_step_once_and_the_table(text, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="the optional package tensorboard is missing")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    spec = spec_of(text, "tracker=tensorboard")
    with pytest.raises(Interrupted):
        trained(spec, tmp_path, After(5))
    run = trained(spec, tmp_path)
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    found = events.Scalars("loss_nats")
    assert [event.step for event in found] == [line["step"] for line in lines]
    assert [e.value for e in found] == pytest.approx([line["loss_nats"] for line in lines])
    sweep = Run(tmp_path / "runs" / "sweep-own")
    sweep.begin({"words": []})
    (sweep.path / "table.csv").write_text("a\n1\n")
    (sweep.path / "table.md").write_text("| a |")
    with shown(spec.composed["tracker"], sweep):
        pass
    events = EventAccumulator(str(sweep.path / "tensorboard")).Reload()
    (table,) = events.Tensors("table/text_summary")
    assert table.tensor_proto.string_val == [b"| a |"]
