"""A model in training, and the loop: one state, one ``fit``, on a page. Callbacks look on."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from swe_cli.contracts import IGNORED, Prediction, Setup
from swe_cli.errors import Interrupted, TrainingError
from swe_cli.records import Batch, Tensors
from swe_cli.seeds import derive, global_randomness


class Phase(NamedTuple):
    """A part of a model's life: its streams of randomness, for batches and for torch's global
    generators during a step, and its words of failure.
    """

    batch_seed: Callable[[int, int], int]
    dropout: Callable[[int, int, torch.device], AbstractContextManager[None]]
    failure: str
    hint: str


TRAINING = Phase(
    lambda seed, number: derive(seed, "batches", number),
    lambda seed, step, device: global_randomness(seed, "dropout", step, device),
    "The {what} at step {step}; the last good checkpoint is kept.",
    "Lower training.learning_rate, or set training.gradient_clip=1.0.",
)
RECOVERY = Phase(
    lambda seed, number: derive(seed, "recovery", number),
    lambda seed, step, device: global_randomness(seed, "recovery_dropout", step, device),
    "The {what} at recovery step {step}.",
    "Lower recovery.learning_rate.",
)


@dataclass
class TrainState:
    """All that a step needs and changes. Losses are nats per token, steps count from 1.

    ``learner`` is what is trained: the model, or the model with a loss of its own around it.
    ``best`` holds the weights of the lowest validation loss.
    """

    setup: Setup
    optimizer: torch.optim.Optimizer
    phase: Phase
    learning_rate_at: Callable[[int], float]
    batch_size: int
    accumulation: int = 1
    gradient_clip: float = 0.0
    learner: Callable[[Batch], Prediction] | None = None
    step: int = 0
    best_step: int = 0
    best_loss_nats: float | None = None  # None until the first evaluation
    final_loss_nats: float | None = None
    recent_losses: list[float] = field(default_factory=list)
    best: Tensors = field(default_factory=dict)

    def check_finite(self, what: str, value: float) -> None:
        """Raise TrainingError, naming the step, for a value that is not finite."""
        if not math.isfinite(value):
            failure = self.phase.failure.format(what=f"{what} is {value}", step=self.step)
            raise TrainingError(failure, self.phase.hint)


class Callback:
    """Looks on while a model trains; each of its methods may be left out."""

    def before_step(self, state: TrainState) -> None:
        """The whole gradient of step ``state.step`` is in place, not clipped, not yet applied."""

    def after_step(self, state: TrainState, metrics: dict[str, Any]) -> None:
        """The step is done. ``metrics`` are those of the step; later callbacks see what is added.

        Raises Interrupted to end the training.
        """


@dataclass(frozen=True)
class StopWhen(Callback):
    """Ends a training where it is, once ``asked`` says so."""

    asked: Callable[[], bool]
    message: str

    def after_step(self, state: TrainState, metrics: dict[str, Any]) -> None:
        if self.asked():
            raise Interrupted(self.message)


def fit(state: TrainState, steps: int, callbacks: Sequence[Callback] = ()) -> None:
    """Take ``steps`` more, in place.

    Raises TrainingError for a loss or a gradient that is not finite; the weights are then as the
    step found them.
    """
    state.setup.model.train()
    for _ in range(steps):
        state.step += 1
        seed, device = state.setup.seed, state.setup.machine.device
        with state.phase.dropout(seed, state.step, device):
            loss = train_step(state, callbacks)
        metrics = {"loss_nats": loss, "learning_rate": state.learning_rate_at(state.step)}
        for callback in callbacks:
            callback.after_step(state, metrics)


def train_step(state: TrainState, callbacks: Sequence[Callback] = ()) -> float:
    """One update from the mean gradient of the step's batches; the mean loss in nats per token.

    Raises TrainingError as ``fit`` does.
    """
    setup, optimizer, total = state.setup, state.optimizer, 0.0
    learner = state.learner or setup.model
    for group in optimizer.param_groups:
        group["lr"] = state.learning_rate_at(state.step)
    for part in range(state.accumulation):
        batch = setup.dataset.random_batch(
            "train",
            size=state.batch_size,
            context=setup.model.context,
            seed=state.phase.batch_seed(setup.seed, state.step * state.accumulation + part),
        )
        batch = setup.machine.move(batch)
        with setup.machine.precision():
            losses = learner(batch).losses
        loss = losses.sum() / (batch["targets"] != IGNORED).sum() / state.accumulation
        loss.backward()
        total += loss.item()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    try:
        state.check_finite("loss", total)
        state.check_finite("norm of the gradient", float(norm))
        for callback in callbacks:
            callback.before_step(state)
        if state.gradient_clip > 0:
            nn.utils.clip_grads_with_norm_(parameters, state.gradient_clip, norm)
        optimizer.step()
    finally:  # a model whose training failed may be trained again
        optimizer.zero_grad(set_to_none=True)
    return total
