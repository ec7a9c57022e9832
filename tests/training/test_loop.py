import math
from dataclasses import replace

import pytest
import torch

from swe_cli.contracts import Prediction
from swe_cli.errors import TrainingError
from swe_cli.evaluation.loss import window_losses
from swe_cli.training import loop
from swe_cli.training.loop import Progress, optimizer_step, train, validation_loss

from .toys import MACHINE, dataset, gpt, never, recipe

STEPS = 12


class Recorder:
    """Everything a training shows, and the weights after every step."""

    def __init__(self, model) -> None:
        self.model, self.lines, self.weights = model, [], {}

    def after_step(self, step, metrics):
        self.weights[step] = snapshot(self.model)

    def record(self, line):
        self.lines.append(line)


def snapshot(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def run(model=None, *, data=None, stop=never, checkpoint=lambda: None, hooks=(), **options):
    data = data or dataset()
    model = model or gpt(data.shape.vocabulary_size)
    small = {"steps": STEPS, "batch_size": 4, "warmup_steps": 2, "evaluate_every": 3}
    made = recipe(**{**small, **options})
    recorder, progress, best = Recorder(model), Progress(), {}
    finished = train(
        model,
        data,
        made,
        made.build_optimizer(model.parameters()),
        progress,
        best,
        seed=1,
        machine=MACHINE,
        hooks=[recorder, *hooks],
        record=recorder.record,
        checkpoint=checkpoint,
        stop=stop,
    )
    return finished, recorder, progress, best


def test_training_learns():
    finished, recorder, progress, _ = run(steps=60, learning_rate=1e-2)
    assert finished
    assert progress.step == 60
    losses = [line["loss_nats"] for line in recorder.lines]
    assert losses[0] == pytest.approx(math.log(dataset().shape.vocabulary_size), abs=0.2)
    assert losses[-1] < losses[0] - 0.3


def test_every_step_leaves_a_line_with_its_learning_rate():
    _, recorder, _, _ = run()
    assert [line["step"] for line in recorder.lines] == list(range(1, STEPS + 1))
    made = recipe(steps=STEPS, warmup_steps=2)
    assert [line["learning_rate"] for line in recorder.lines] == [
        made.learning_rate_at(step) for step in range(1, STEPS + 1)
    ]
    evaluated = [line["step"] for line in recorder.lines if "validation_loss_nats" in line]
    assert evaluated == [3, 6, 9, 12]


def test_the_last_step_is_always_evaluated():
    _, recorder, progress, best = run(evaluate_every=1000)
    assert [line["step"] for line in recorder.lines if "validation_loss_nats" in line] == [STEPS]
    assert progress.best_step == STEPS
    assert best


def test_the_best_weights_are_those_of_the_lowest_validation_loss():
    data = dataset(words=60)  # so little text that a high rate makes the loss go up and down
    _, recorder, progress, best = run(
        data=data, learning_rate=0.3, schedule="constant", steps=41, evaluate_every=2
    )
    losses = {
        line["step"]: line["validation_loss_nats"]
        for line in recorder.lines
        if "validation_loss_nats" in line
    }
    assert progress.best_step == min(losses, key=lambda step: losses[step])
    assert progress.best_step < 41  # or the test would show nothing
    assert progress.best_loss_nats == losses[progress.best_step]
    assert progress.final_loss_nats == losses[41]
    for name, weight in recorder.weights[progress.best_step].items():
        assert torch.equal(best[name], weight)
    model = gpt(data.shape.vocabulary_size)
    model.load_state_dict(best)
    assert validation_loss(model, data, 4, MACHINE) == progress.best_loss_nats


class Poisoned(torch.nn.Module):
    """A model whose loss, or gradient, is no number from the ``at``-th training batch on."""

    def __init__(self, model, at: int, loss=None, gradient=None) -> None:
        super().__init__()
        self.inner, self.at, self.seen = model, at, 0
        self.loss, self.gradient = loss, gradient
        self.context = model.context

    def forward(self, batch):
        losses, logits = self.inner(batch)
        self.seen += self.training
        if self.training and self.seen >= self.at:
            if self.gradient is not None:
                losses.register_hook(lambda gradient: gradient * self.gradient)
            else:
                losses = losses * self.loss
        return Prediction(losses, logits)


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize(
    ("poison", "named"),
    [
        ({"loss": math.nan}, "The loss is nan at step 5"),
        ({"loss": math.inf}, "The loss is inf at step 5"),
        ({"gradient": math.nan}, "The norm of the gradient is nan at step 5"),
        ({"gradient": math.inf}, "The norm of the gradient is (nan|inf) at step 5"),
    ],
)
def test_a_loss_or_gradient_that_is_no_number_names_the_step_and_spares_weights(
    poison, named, clip
):
    data, kept = dataset(), []
    model = Poisoned(gpt(data.shape.vocabulary_size), at=5, **poison)
    recorder = Recorder(model)
    with pytest.raises(TrainingError, match=named):
        run(
            model,
            data=data,
            hooks=[recorder],
            gradient_clip=clip,
            checkpoint_every=2,
            checkpoint=lambda: kept.append(snapshot(model)),
        )
    assert max(recorder.weights) == 4  # the fifth step never happened
    after = snapshot(model)
    for name, weight in recorder.weights[4].items():
        assert torch.equal(after[name], weight)
    assert len(kept) == 2  # steps 2 and 4
    assert all(weight.isfinite().all() for saved in kept for weight in saved.values())


def test_a_validation_loss_that_is_no_number_names_the_step():
    data = dataset()
    model = gpt(data.shape.vocabulary_size)

    class Breaker:
        def after_step(self, step, metrics):
            if step == 3:
                with torch.no_grad():
                    model.norm.weight.fill_(math.nan)

    with pytest.raises(TrainingError, match="validation loss is nan at step 3"):
        run(model, data=data, hooks=[Breaker()])


def test_a_spike_is_recorded_once_the_median_is_known():
    data = dataset()
    model = gpt(data.shape.vocabulary_size)

    class Spiking(torch.nn.Module):
        context, seen = model.context, 0

        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, batch):
            losses, logits = self.inner(batch)
            self.seen += self.training
            return Prediction(losses * (2.0 if self.seen in (10, loop.RECENT + 3) else 1.0), logits)

    _, recorder, _, _ = run(
        Spiking(), data=data, steps=loop.RECENT + 5, learning_rate=1e-5, evaluate_every=1000
    )
    spikes = [line["step"] for line in recorder.lines if line.get("spike")]
    assert spikes == [loop.RECENT + 3]  # at step 10 there is nothing yet to compare with


def test_accumulating_two_batches_is_one_batch_twice_as_large():
    data = dataset()
    halves = [data.random_batch("train", size=3, context=16, seed=seed) for seed in (1, 2)]
    whole = {key: torch.cat([half[key] for half in halves]) for key in halves[0]}
    results = []
    for batches in (halves, [whole]):
        model = gpt(data.shape.vocabulary_size, dropout=0.0)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        loss = optimizer_step(model, optimizer, batches, 0.0, MACHINE)
        results.append((loss, snapshot(model)))
    (loss, weights), (expected_loss, expected) = results
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    before = snapshot(gpt(data.shape.vocabulary_size, dropout=0.0))
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-6)
        assert not torch.equal(weight, before[name])


def test_clipping_limits_the_norm_of_the_whole_gradient():
    data = dataset()
    batch = data.random_batch("train", size=3, context=16, seed=1)
    moved, shown = [], []
    for clip in (0.0, 0.01):
        model = gpt(data.shape.vocabulary_size)
        before, optimizer = snapshot(model), torch.optim.SGD(model.parameters(), lr=1.0)

        def look(model=model):
            shown.append({name: p.grad.clone() for name, p in model.named_parameters()})

        optimizer_step(model, optimizer, [batch], clip, MACHINE, look)
        step = [weight - before[name] for name, weight in snapshot(model).items()]
        moved.append(torch.nn.utils.get_total_norm(step).item())
    assert moved[0] > 0.02
    assert moved[1] == pytest.approx(0.01, rel=1e-3)
    whole, unclipped = shown  # what looks before the step sees the gradient as it was
    assert all(torch.equal(unclipped[name], gradient) for name, gradient in whole.items())


def test_the_seed_and_step_alone_choose_batches_and_dropout():
    data = dataset()
    weights = [
        snapshot_after(gpt(data.shape.vocabulary_size, dropout=0.2), data, disturb)
        for disturb in (0, 7)
    ]
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name])


def snapshot_after(model, data, disturb):
    torch.rand(disturb)  # what others draw from the global generator makes no difference
    run(model, data=data)
    return snapshot(model)


def test_stop_ends_after_the_step_with_a_checkpoint():
    saved = []
    finished, recorder, progress, _ = run(stop=lambda: True, checkpoint=lambda: saved.append(1))
    assert not finished
    assert progress.step == 1
    assert saved == [1]
    assert len(recorder.lines) == 1


def test_stop_at_the_last_step_is_the_end():
    saved = []
    finished, _, progress, _ = run(steps=1, stop=lambda: True, checkpoint=lambda: saved.append(1))
    assert finished
    assert progress.step == 1
    assert saved == []


def test_checkpoints_come_at_their_steps_but_not_at_the_end():
    at = []
    data = dataset()
    model = gpt(data.shape.vocabulary_size)

    class Counter:
        step = 0

        def after_step(self, step, metrics):
            self.step = step

    counter = Counter()
    run(
        model,
        data=data,
        hooks=[counter],
        checkpoint_every=4,
        checkpoint=lambda: at.append(counter.step),
    )
    assert at == [4, 8]


def test_validation_is_in_evaluation_mode_and_gives_training_mode_back():
    data = dataset()
    model = gpt(data.shape.vocabulary_size, dropout=0.5).train()
    one = validation_loss(model, data, 4, MACHINE)
    assert one == validation_loss(model, data, 4, MACHINE)
    assert model.training
    windows = data.windows("validation", context=16, size=4)
    assert one == window_losses(model, windows, machine=replace(MACHINE)).mean_nats
