"""A model in training, and the loop: one state, one ``fit``, on a page. Callbacks look on."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from swe_cli.contracts import Learner, Setup
from swe_cli.errors import Interrupted, TrainingError
from swe_cli.records import Tensors
from swe_cli.seeds import derive, global_randomness
from swe_cli.training.backward import Backward
from swe_cli.training.parallel import ALONE, Ranks, full, laid_as, local

OnSpike = Literal["record", "skip", "retry"]
SPIKE = 1.5  # a loss this many times the median of the recent ones is a spike
RECENT = 50
ATTEMPTS = 4  # at a step that draws other batches after a spike
Stop = Callable[[], bool]  # whether somebody asks to stop


@dataclass
class TrainState:
    """All that a step needs and changes. Steps count from 1.

    ``learner`` is what is trained: the model, or the model with a loss of its own around it.
    ``recovering``: after a cut, with streams of randomness of its own. ``on_spike``: what a step
    does whose loss stands out from ``recent_losses`` (Ling, arXiv 2503.05139). Spikes are among
    those, so that a loss that rises for good is one no longer.
    """

    setup: Setup
    optimizer: torch.optim.Optimizer
    learning_rate_at: Callable[[int], float]
    batch_size: int
    accumulation: int = 1
    gradient_clip: float = 0.0
    learner: Learner | None = None
    recovering: bool = False
    backward: Backward = field(default_factory=Backward)
    on_spike: OnSpike = "record"
    ranks: Ranks = ALONE
    recent_losses: list[float] = field(default_factory=list)
    step: int = 0

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer moves, in its order."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def optimizer_tensors(self) -> Tensors:
        """The state of the optimizer, ``<parameter>/<slot>``."""
        slots = self.optimizer_slots()
        return {f"{name}/{slot}": of[name] for slot, of in slots.items() for name in of}

    def optimizer_slots(self) -> dict[str, Tensors]:
        """The state of the optimizer: slot → tensors by parameter name."""
        return slots_of(self.optimizer, dict(self.setup.model.named_parameters()))

    def load_optimizer(self, saved: Tensors) -> None:
        """Give the optimizer a copy of the state that ``optimizer_tensors`` gave."""
        named: dict[Tensor, str] = {p: name for name, p in self.setup.model.named_parameters()}
        parameters, state = self.parameters, defaultdict[int, Tensors](dict)
        names = [named[p] for p in parameters]
        for key, value in saved.items():
            name, _, slot = key.rpartition("/")
            # Version 0.1 wrote the place of a parameter among those of the optimizer.
            place = names.index(name) if name in names else int(name)
            state[place][slot] = laid_as(parameters[place], value.clone())
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def batch_seed(self, part: int, attempt: int = 0) -> int:
        """The seed of one of the ``accumulation`` batches of an attempt at this step."""
        seed, number = self.setup.seed, self.step * self.accumulation + part
        if self.recovering:
            return derive(seed, "recovery", number)
        if attempt:
            return derive(seed, f"batches/{attempt}", number)
        return derive(seed, "batches", number)

    def dropout(self) -> AbstractContextManager[None]:
        """Torch's global generators, seeded for this step."""
        seed, device = self.setup.seed, self.setup.machine.device
        if self.recovering:
            return global_randomness(seed, "recovery_dropout", self.step, device)
        if number := self.ranks.number:  # each rank drops others, of its own rows
            return global_randomness(seed, f"dropout/{number}", self.step, device)
        return global_randomness(seed, "dropout", self.step, device)

    def check_finite(self, what: str, value: float) -> None:
        """Raise TrainingError, naming the step, for a value that is not finite."""
        if math.isfinite(value):
            return
        where = f"step {self.step}; the last good checkpoint is kept"
        advice = "Lower training.learning_rate, or set training.gradient_clip=1.0."
        if self.recovering:
            where, advice = f"recovery step {self.step}", "Lower recovery.learning_rate."
        raise TrainingError(f"The {what} is {value} at {where}.", advice)


def slots_of(optimizer: Any, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensors]:
    """The state of an optimizer: slot → tensors by parameter name, of shards ours."""
    slots: dict[str, Tensors] = {}
    for name, parameter in parameters.items():
        for slot, value in optimizer.state.get(parameter, {}).items():
            slots.setdefault(slot, {})[name] = local(value)
    return slots


class Callback:
    """Looks on while a model trains; each of its methods may be left out."""

    def before_step(self, state: TrainState) -> None:
        """The whole gradient of step ``state.step`` is in place, not clipped, not yet applied."""

    def after_step(self, state: TrainState, metrics: dict[str, Any]) -> None:
        """The step is done; later callbacks see what is added. Interrupted ends the training."""


def never() -> bool:
    """Nobody asks to stop."""
    return False


@dataclass(frozen=True)
class StopWhen(Callback):
    """Ends a training where it is, once ``asked`` says so."""

    asked: Stop
    message: str

    def after_step(self, state: TrainState, metrics: dict[str, Any]) -> None:
        if self.asked():
            raise Interrupted(self.message)


def fit(state: TrainState, steps: int, callbacks: Sequence[Callback] = ()) -> None:
    """Take ``steps`` more, in place.

    Raises TrainingError for a loss or gradient that is not finite; the step changes nothing then.
    """
    state.setup.model.train()
    for _ in range(steps):
        state.step += 1
        with state.dropout():
            metrics = train_step(state, callbacks)
        for callback in callbacks:
            callback.after_step(state, metrics)


def train_step(state: TrainState, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
    """One update from the mean gradient of the step's batches. Of it, "loss_nats" per token and
    "learning_rate"; "spike" where the first loss was one, "skipped" where nothing was updated.

    Where the last of ``ATTEMPTS`` is a spike too, it is the weights, which only an update can mend.
    Raises TrainingError as ``fit`` does.
    """
    optimizer, rate = state.optimizer, state.learning_rate_at(state.step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    metrics: dict[str, Any] = {"learning_rate": rate}
    try:
        for attempt in range(ATTEMPTS if state.on_spike == "retry" else 1):
            optimizer.zero_grad(set_to_none=True)
            metrics["loss_nats"] = loss = gradient(state, attempt)
            state.check_finite("loss", loss)
            recent = sorted(state.recent_losses)
            if len(recent) < RECENT or loss <= SPIKE * recent[RECENT // 2]:
                break
            metrics["spike"] = True
        state.recent_losses.append(loss)
        del state.recent_losses[:-RECENT]
        if state.on_spike == "skip" and "spike" in metrics:
            return metrics | {"skipped": True}
        gradients = [p.grad for p in state.parameters if p.grad is not None]
        norm = full(nn.utils.get_total_norm(gradients))
        state.check_finite("norm of the gradient", float(norm))
        for callback in callbacks:
            callback.before_step(state)
        if state.gradient_clip > 0:
            nn.utils.clip_grads_with_norm_(state.parameters, state.gradient_clip, norm)
        optimizer.step()
    finally:  # a model whose training failed may be trained again
        optimizer.zero_grad(set_to_none=True)
    return metrics


def gradient(state: TrainState, attempt: int = 0) -> float:
    """Put in place the mean gradient of the step's batches; their mean loss in nats per token."""
    setup, total = state.setup, 0.0
    with state.backward(state.step):
        for part in range(state.accumulation):
            batch = setup.random_batch("train", state.batch_size, state.batch_seed(part, attempt))
            ours, share = state.ranks.part(batch)
            loss = setup.mean_loss(setup.machine.move(ours), state.learner) * share
            loss = loss / state.accumulation
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
    return state.ranks.sum(total) / state.ranks.count
