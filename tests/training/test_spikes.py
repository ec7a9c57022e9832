"""What a step does whose loss is a spike. Of the toys' losses, half are, once any above the median
of the last three is one.
"""

import json

import pytest
import torch

from swe_cli.errors import Interrupted, TrainingError, UsageError
from swe_cli.files import read_tensors
from swe_cli.seeds import derive
from swe_cli.training import state as training_state
from swe_cli.training.state import ATTEMPTS, Callback, fit

from .toys import (
    After,
    assert_same,
    assert_same_tensors,
    contents,
    dataset,
    gpt,
    metrics,
    recipe,
    run_of,
    setup_of,
    spec_of,
    sweep_of,
    swept,
    trained,
    write_text,
)

STEPS = 8  # of TINY


@pytest.fixture
def touchy(monkeypatch):
    monkeypatch.setattr(training_state, "RECENT", 3)
    monkeypatch.setattr(training_state, "SPIKE", 1.0)


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path)


class Watched(Callback):
    """All that a step may change, after every step, and what it said."""

    def __init__(self):
        self.after, self.said, self.observed = [], [], 0

    def before_step(self, state):
        self.observed += 1

    def after_step(self, state, metrics):
        both = state.setup.model.weights() | state.optimizer_tensors()
        self.after.append({name: tensor.clone() for name, tensor in both.items()})
        self.said.append(metrics)


def state_of(losses, **options):
    """A training that has seen three losses of 1, and whose batches have ``losses``, in order."""
    data = dataset()
    model = gpt(data.shape.vocabulary_size)
    state = recipe(steps=STEPS, batch_size=2, **options).begin(setup_of(model, data))
    state.recent_losses = [1.0] * 3
    given, seeds, forward = iter(losses), [], state.setup.mean_loss
    draw = data.random_batch

    def drawn(split, *, size, context, seed):
        seeds.append(seed)
        return draw(split, size=size, context=context, seed=seed)

    def scaled(batch, learner=None):
        loss = forward(batch, learner)
        return loss * (next(given) / loss.item())

    data.random_batch, state.setup.mean_loss = drawn, scaled
    return state, seeds


def test_a_skipped_step_changes_nothing_and_the_next_goes_on(touchy):
    state, _ = state_of([1.0, 2.0, 0.5], on_spike="skip")
    watched = Watched()
    fit(state, 3, [watched])
    first, second, third = watched.after
    assert_same_tensors(second, first)  # weights, both moments, and Adam's own count of steps
    assert any(not torch.equal(third[name], first[name]) for name in first)
    spikes = [(of.get("spike"), of.get("skipped")) for of in watched.said]
    assert spikes == [(None, None), (True, True), (None, None)]
    assert watched.observed == 2
    assert state.recent_losses == pytest.approx([1.0, 2.0, 0.5])  # the skipped one among them


def test_a_loss_that_rises_for_good_is_soon_no_spike(touchy):
    state, _ = state_of([2.0] * 4, on_spike="skip")
    watched = Watched()
    fit(state, 4, [watched])
    assert ["skipped" in of for of in watched.said] == [True, True, False, False]


def test_a_retried_step_is_taken_by_the_first_batch_that_is_no_spike(touchy):
    state, seeds = state_of([2.0, 3.0, 1.0, 1.0], on_spike="retry")
    watched = Watched()
    fit(state, 2, [watched])
    assert seeds == [derive(1, name, 1) for name in ("batches", "batches/1", "batches/2")] + [
        derive(1, "batches", 2)
    ]
    assert watched.said[0]["spike"]
    assert watched.said[0]["loss_nats"] == pytest.approx(1.0)
    assert "spike" not in watched.said[1]
    plain, plain_seeds = state_of([1.0])  # which is given the third batch at once
    plain.batch_seed = lambda part, attempt: seeds[2]
    looked = Watched()
    fit(plain, 1, [looked])
    assert plain_seeds == seeds[2:3]
    assert_same_tensors(watched.after[0], looked.after[0])  # of those before, no gradient is left


def test_where_every_batch_is_a_spike_the_last_is_taken(touchy):
    state, seeds = state_of([2.0, 3.0, 4.0, 5.0], on_spike="retry")
    watched = Watched()
    fit(state, 1, [watched])
    assert len(set(seeds)) == ATTEMPTS == 4
    assert watched.said[0]["loss_nats"] == pytest.approx(5.0)
    assert watched.observed == 1
    assert state.recent_losses == pytest.approx([1.0, 1.0, 5.0])


@pytest.mark.parametrize("on_spike", ["skip", "retry"])
@pytest.mark.parametrize("step", range(1, STEPS))
def test_stopped_at_any_step_it_goes_on_bit_for_bit(step, on_spike, touchy, text, tmp_path):
    plan = spec_of(text, f"training.on_spike={on_spike}")
    whole = trained(plan, tmp_path / "whole")
    assert contents(whole)[1].count('"spike": true') >= 2
    with pytest.raises(Interrupted):
        trained(plan, tmp_path, stop=After(step))
    run = trained(plan, tmp_path)
    assert_same(contents(run), contents(whole))
    assert run.manifest["measures"] == whole.manifest["measures"]


def test_what_is_skipped_is_not_observed(touchy, text, tmp_path):
    run = trained(spec_of(text, "training.on_spike=skip"), tmp_path)
    lines = [json.loads(line) for line in metrics(run).splitlines()]
    skipped = [line["step"] for line in lines if line.get("skipped")]
    assert 2 <= len(skipped) < STEPS
    assert run.manifest["tracker"]["count"] == STEPS - len(skipped)
    assert run.manifest["measures"]["spikes"] == len(skipped)
    sampled = run.tensors("trajectory.safetensors")["sample/steps"].tolist()
    assert sampled == [step for step in range(1, STEPS + 1) if step not in skipped]


def test_recording_is_what_it_was(touchy, text, tmp_path):
    """The same run, and the same weights, whatever the threshold."""
    plain = spec_of(text)
    assert plain.run == spec_of(text, "training.on_spike=record").run
    assert plain.run != spec_of(text, "training.on_spike=skip").run
    touchy_run = trained(plain, tmp_path / "touchy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_state, "RECENT", 50)
        calm = trained(plain, tmp_path / "calm")
    assert_same_tensors(*(run.tensors("model.safetensors") for run in (touchy_run, calm)))
    assert calm.manifest["measures"]["spikes"] == 0
    assert touchy_run.manifest["measures"]["spikes"] > 0


def test_with_nothing_cut_early_is_the_training_itself(touchy, text, tmp_path):
    """An early cut goes on with the losses that the training had seen by then."""
    words = ("training.on_spike=skip", "schedule=early", "schedule.at_step=5", "recovery=none")
    plan = sweep_of(text, tmp_path, *words, "criterion=swe", "ratio=0.0", "keep=models")
    rows = swept(plan).rows
    (cell,) = (cell for cell in plan.cells if cell.kind == "pruned")
    early, dense = read_tensors(cell.model_to), cell.training.run.tensors("model.safetensors")
    assert_same_tensors(early, {name: dense[name] for name in early})
    assert {row.mean("spikes") for row in rows} == {
        cell.training.run.manifest["measures"]["spikes"]
    }
    assert rows[0].columns()["spikes"] >= 2


def test_an_average_of_nothing_is_refused(touchy, text, tmp_path):
    """Of these steps only the last would have been observed, which is a spike."""
    spec = spec_of(text, "training.on_spike=skip")
    lines = metrics(trained(spec, tmp_path)).splitlines()
    last = max(json.loads(line)["step"] for line in lines if "skipped" in line)
    words = (f"training.steps={last}", f"tracking.every={last}", "training.schedule=constant")
    with pytest.raises(TrainingError, match="All to be observed were spikes"):
        trained(spec_of(text, "training.on_spike=skip", *words), tmp_path / "short")


def test_another_word_is_refused_in_a_sentence(text):
    with pytest.raises(UsageError, match=r"training\.on_spike=never is wrong: it should be"):
        spec_of(text, "training.on_spike=never")


def test_run_of_names_the_recipe(text, tmp_path):
    plan = spec_of(text, "training.on_spike=retry")
    assert plan.config["identity"]["training"]["on_spike"] == "retry"
    assert run_of(plan, tmp_path).name != run_of(spec_of(text), tmp_path).name
