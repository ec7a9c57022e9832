"""The loop and what looks on: every step, every line, every checkpoint."""

import json
import math
from dataclasses import replace
from itertools import count

import pytest
import torch

from swe_cli.config import ConfigRoot, component
from swe_cli.conform import conform
from swe_cli.contracts import Prediction, Statistic
from swe_cli.errors import Interrupted, TrainingError
from swe_cli.evaluation.loss import by_window, mean_of, row_pass, validation_loss
from swe_cli.files import read_tensors
from swe_cli.pruning.recover import EnforceMasks
from swe_cli.store import Run
from swe_cli.training.run import Training, train_run
from swe_cli.training.state import RECENT, Callback, StopWhen, TrainState, fit, train_step
from swe_cli.training.tracker import Tracker

from .toys import Steps, dataset, gpt, never, recipe, setup_of

STEPS = 12
TRACKING = component("tracking", "every_step", ConfigRoot()).instance


def copied(model):
    return {name: weight.clone() for name, weight in model.weights().items()}


def same(one, other):
    return all(torch.equal(weight, other[name]) for name, weight in one.items())


class Recorder(Callback):
    """The weights after every step, and the steps whose checkpoints were there by then."""

    def __init__(self, run) -> None:
        self.run, self.weights, self.checkpoints = run, {}, {}

    def after_step(self, state, metrics):
        self.weights[state.step] = copied(state.setup.model)
        for path in self.run.path.glob("checkpoints/step-*"):
            self.checkpoints.setdefault(
                int(path.name[5:]), read_tensors(path / "model.safetensors")
            )

    @property
    def lines(self):
        text = (self.run.path / "metrics.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def validations(self):
        key = "validation_loss_nats"
        return {line["step"]: line[key] for line in self.lines if key in line}

    @property
    def results(self):
        return self.run.manifest["results"]

    @property
    def best(self):
        return self.run.tensors("best.safetensors")


@pytest.fixture
def run(tmp_path):
    """Train a model of the toys to the end, or to where it is stopped or fails."""
    recorder = Recorder(Run(tmp_path / "runs" / "train-toy-1"))

    def start(model=None, *, data=None, stop=never, callbacks=(), **options):
        data = data or dataset()
        model = model or gpt(data.shape.vocabulary_size)
        small = {"steps": STEPS, "batch_size": 4, "warmup_steps": 2, "evaluate_every": 3}
        config = {"identity": {}, "paths": {}}
        made = recipe(**{**small, **options})
        training = Training(setup_of(model, data), made, TRACKING, {}, config)
        train_run(recorder.run, training, [recorder, *callbacks], stop)
        return recorder

    start.recorder = recorder
    return start


def spoiled(model, spoil):
    """``spoil(losses, n)`` in place of the losses of the n-th batch that it is trained on."""
    forward, batches = model.forward, count(1)

    def call(batch):
        losses, logits = forward(batch)
        return Prediction(spoil(losses, next(batches)) if model.training else losses, logits)

    model.forward = call
    return model


def test_training_learns(run):
    losses = [line["loss_nats"] for line in run(steps=60, learning_rate=1e-2).lines]
    assert len(losses) == 60
    assert losses[0] == pytest.approx(math.log(dataset().shape.vocabulary_size), abs=0.2)
    assert losses[-1] < losses[0] - 0.3


def test_every_step_leaves_a_line_with_its_learning_rate(run):
    recorder = run()
    assert [line["step"] for line in recorder.lines] == list(range(1, STEPS + 1))
    made = recipe(steps=STEPS, warmup_steps=2)
    assert [line["learning_rate"] for line in recorder.lines] == [
        made.learning_rate_at(step) for step in range(1, STEPS + 1)
    ]
    assert [*recorder.validations()] == [3, 6, 9, 12]


def test_the_last_step_is_always_evaluated(run):
    recorder = run(evaluate_every=1000)
    assert [*recorder.validations()] == [STEPS]
    assert recorder.results["best_step"] == STEPS
    assert recorder.best


def test_the_best_weights_are_those_of_the_lowest_validation_loss(run):
    data = dataset(words=60)  # so little text that a high rate makes the loss go up and down
    recorder = run(data=data, learning_rate=0.3, schedule="constant", steps=41, evaluate_every=2)
    losses, results = recorder.validations(), recorder.results
    best_step = results["best_step"]
    assert best_step == min(losses, key=lambda step: losses[step])
    assert best_step < 41  # or the test would show nothing
    assert results["best_validation_loss_nats"] == losses[best_step]
    assert results["final_validation_loss_nats"] == losses[41]
    assert same(recorder.weights[best_step], recorder.best)
    model = gpt(data.shape.vocabulary_size)
    model.load_state_dict(recorder.best)
    assert validation_loss(setup_of(model, data), 4) == losses[best_step]


def hooked(losses, factor):
    losses.register_hook(lambda gradient: gradient * factor)
    return losses


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize(
    ("poison", "named"),
    [
        (lambda losses: losses * math.nan, "The loss is nan at step 5"),
        (lambda losses: losses * math.inf, "The loss is inf at step 5"),
        (lambda losses: hooked(losses, math.nan), "The norm of the gradient is nan at step 5"),
        (
            lambda losses: hooked(losses, math.inf),
            "The norm of the gradient is (nan|inf) at step 5",
        ),
    ],
)
def test_a_loss_or_gradient_that_is_no_number_names_the_step_and_spares_weights(
    poison, named, clip, run
):
    data = dataset()
    model = spoiled(gpt(data.shape.vocabulary_size), lambda of, at: poison(of) if at >= 5 else of)
    with pytest.raises(TrainingError, match=named):
        run(model, data=data, gradient_clip=clip, checkpoint_every=2)
    recorder = run.recorder
    assert max(recorder.weights) == 4  # the fifth step never happened
    assert same(copied(model), recorder.weights[4])
    assert sorted(path.name for path in recorder.run.path.glob("checkpoints/*")) == [
        "step-00000002",
        "step-00000004",
    ]
    assert same(recorder.checkpoints[2], recorder.weights[2])
    assert recorder.run.status == "stopped"


def test_a_validation_loss_that_is_no_number_names_the_step(run):
    def break_at_3(state):
        if state.step == 3:
            state.setup.model.weights()["norm.weight"].fill_(math.nan)

    with pytest.raises(TrainingError, match="validation loss is nan at step 3"):
        run(callbacks=[Steps(break_at_3)])


def test_a_spike_is_recorded_once_the_median_is_known(run):
    data = dataset()
    model = spoiled(
        gpt(data.shape.vocabulary_size),
        lambda losses, at: losses * (2.0 if at in (10, RECENT + 3) else 1.0),
    )
    rates = {"learning_rate": 1e-5, "minimum_learning_rate": 0.0}
    recorder = run(model, data=data, steps=RECENT + 5, evaluate_every=1000, **rates)
    spikes = [line["step"] for line in recorder.lines if line.get("spike")]
    assert spikes == [RECENT + 3]  # at step 10 there is nothing yet to compare with


def plain_state(model, data, batches, clip=0.0):
    """A training by plain gradient descent on these batches."""
    setup = setup_of(model, data)
    given = iter(batches)
    setup.dataset = type("Given", (), {"random_batch": lambda *_, **of: next(given)})()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return TrainState(setup, optimizer, lambda step: 1.0, 3, len(batches), gradient_clip=clip)


def test_accumulating_two_batches_is_one_batch_twice_as_large():
    data = dataset()
    halves = [data.random_batch("train", size=3, context=16, seed=seed) for seed in (1, 2)]
    whole = {key: torch.cat([half[key] for half in halves]) for key in halves[0]}
    results = []
    for batches in (halves, [whole]):
        model = gpt(data.shape.vocabulary_size, dropout=0.0)
        results.append((train_step(plain_state(model, data, batches)), copied(model)))
    (of, weights), (expected_of, expected) = results
    assert of["loss_nats"] == pytest.approx(expected_of["loss_nats"], rel=1e-6)
    before = copied(gpt(data.shape.vocabulary_size, dropout=0.0))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-6)
        assert not torch.equal(weight, before[name])


class Gradients(Callback):
    """What is there before a step."""

    def before_step(self, state):
        parameters = state.setup.model.named_parameters()
        self.seen = {name: p.grad.clone() for name, p in parameters}


def test_clipping_limits_the_norm_of_the_whole_gradient():
    data = dataset()
    batch = data.random_batch("train", size=3, context=16, seed=1)
    moved, shown = [], []
    for clip in (0.0, 0.01):
        model, look = gpt(data.shape.vocabulary_size), Gradients()
        before = copied(model)
        train_step(plain_state(model, data, [batch], clip), [look])
        shown.append(look.seen)
        step = [weight - before[name] for name, weight in copied(model).items()]
        moved.append(torch.nn.utils.get_total_norm(step).item())
    assert moved[0] > 0.02
    assert moved[1] == pytest.approx(0.01, rel=1e-3)
    assert same(*shown)  # what looks before the step sees the gradient as it was


def begun(**options):
    """A training of the toys that has taken no step."""
    data = dataset()
    model = gpt(data.shape.vocabulary_size, **options)
    return recipe(steps=STEPS, batch_size=4).begin(setup_of(model, data))


def test_the_seed_and_step_alone_choose_batches_and_dropout():
    weights = []
    for disturb in (0, 7):
        state = begun(dropout=0.2)
        torch.rand(disturb)  # what others draw from the global generator makes no difference
        fit(state, STEPS)
        weights.append(copied(state.setup.model))
    assert same(*weights)


# Callbacks


class Told(Callback):
    """Writes down what it is told, and adds a metric."""

    def __init__(self, name, told):
        self.name, self.told = name, told

    def before_step(self, state):
        self.told.append((self.name, "before", state.step))

    def after_step(self, state, metrics):
        self.told.append((self.name, "after", state.step, *metrics))
        metrics[self.name] = 1


def test_callbacks_are_told_in_order_and_see_what_earlier_ones_add():
    told = []
    fit(begun(), 2, [Told("one", told), Callback(), Told("two", told)])
    own = ("learning_rate", "loss_nats")
    assert told == [
        of
        for step in (1, 2)
        for of in (
            ("one", "before", step),
            ("two", "before", step),
            ("one", "after", step, *own),
            ("two", "after", step, *own, "one"),
        )
    ]


def test_before_a_step_weights_are_as_the_last_one_left_them():
    state, seen = begun(), {}

    class Before(Callback):
        def before_step(self, state):
            seen[state.step] = copied(state.setup.model)

    after = {}
    fit(state, 3, [Before(), Steps(lambda s: after.update({s.step: copied(s.setup.model)}))])
    assert same(seen[2], after[1])
    assert same(seen[3], after[2])
    assert not same(after[2], after[3])


def test_a_plain_class_that_looks_before_the_step_is_shown_the_whole_gradient():
    """A user's statistic, of no base class; gradients are those that callbacks see."""

    class Gradient:
        def __init__(self, weights):
            self.sum = {name: torch.zeros_like(weight) for name, weight in weights.items()}

        def before_step(self, weights, gradients, share):
            for name, total in self.sum.items():
                total.add_(gradients[name])

        def update(self, weights, index, share):
            pass

        def state(self):
            return self.sum

        def load(self, state):
            self.sum = state

    state, looked = begun(), Gradients()
    weights = state.setup.model.weights()
    statistic = conform(Gradient(weights), Statistic, "statistic=gradient")
    every_second = replace(TRACKING, every=2)
    tracker = Tracker(
        weights, {"gradient": statistic}, {}, every_second, steps=3, steps_per_epoch=1, seed=0
    )
    fit(state, 2, [tracker, looked])
    assert same(statistic.state(), looked.seen)  # of the second step: the first was not observed
    assert any(of.any() for of in looked.seen.values())


@pytest.mark.parametrize("first", ["mask", "tracker"])
def test_a_mask_and_a_tracker_look_on_one_after_the_other(first):
    """What comes first decides whether what is observed is masked already."""
    state = begun()
    model = state.setup.model
    lens = lambda tensors: model.prunable(tensors, "linear")  # noqa: E731
    masks = {name: torch.rand(w.shape) > 0.5 for name, w in lens(model.weights()).items()}
    statistic = component("statistic", "mean", ConfigRoot()).build(model.weights())
    tracker = Tracker(
        model.weights(), {"mean": statistic}, {}, TRACKING, steps=1, steps_per_epoch=1, seed=0
    )
    both = {"mask": EnforceMasks(lens(model.weights()), masks), "tracker": tracker}
    fit(state, 1, [both.pop(first), *both.values()])
    observed = lens(statistic.state())
    for name, mask in masks.items():
        assert not lens(model.weights())[name][~mask].any()
        assert bool(observed[name][~mask].any()) is (first == "tracker")


def test_one_that_raises_interrupted_ends_the_training_where_it_is():
    state, asked = begun(), iter([False, False, True])
    with pytest.raises(Interrupted, match="enough"):
        fit(state, STEPS, [StopWhen(lambda: next(asked), "enough")])
    assert state.step == 3


# Checkpoints


def test_stop_ends_after_the_step_with_a_checkpoint(run):
    with pytest.raises(Interrupted, match="Stopped at step 1; a checkpoint is safe"):
        run(stop=lambda: True)
    assert len(run.recorder.lines) == 1
    assert [path.name for path in run.recorder.run.path.glob("checkpoints/*")] == ["step-00000001"]


def test_stop_at_the_last_step_is_the_end(run):
    recorder = run(steps=1, stop=lambda: True)
    assert recorder.run.finished
    assert recorder.results["steps"] == 1


def test_checkpoints_come_at_their_steps_but_not_at_the_end(run):
    kept, folder = [], run.recorder.run.path / "checkpoints"
    write = "swe_cli.training.run.write_directory"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, lambda path, *_: kept.append(path.relative_to(folder).name))
        run(checkpoint_every=4)
    assert kept == ["step-00000004", "step-00000008"]


def test_validation_is_in_evaluation_mode_and_gives_training_mode_back():
    data = dataset()
    setup = setup_of(gpt(data.shape.vocabulary_size, dropout=0.5).train(), data)
    one = validation_loss(setup, 4)
    assert one == validation_loss(setup, 4)
    assert setup.model.training
    windows = data.windows("validation", context=16, size=4)
    assert one == mean_of(by_window(row_pass(setup, windows)), "nats")
