"""The training loop, on a page. Hooks observe; they never change a weight."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from swe_cli.contracts import IGNORED, Batch, Dataset, Model, Tensors
from swe_cli.errors import TrainingError
from swe_cli.evaluation.loss import window_losses
from swe_cli.machine import Machine
from swe_cli.seeds import derive, global_randomness
from swe_cli.training.recipe import Recipe

SPIKE = 1.5  # a loss this many times the median of the recent ones is recorded as a spike
RECENT = 50


class Hook(Protocol):
    """Something that watches: the tracker, a progress bar."""

    def after_step(self, step: int, metrics: dict[str, float]) -> None: ...


@dataclass
class Progress:
    """All of a training that is neither weight nor optimizer state. Plain values."""

    step: int = 0
    best_step: int = 0
    best_loss_nats: float = math.inf
    final_loss_nats: float = math.nan
    recent_losses: list[float] = field(default_factory=list)


def train(
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    best: Tensors,
    *,
    seed: int,
    machine: Machine,
    hooks: Sequence[Hook],
    record: Callable[[dict[str, Any]], None],
    checkpoint: Callable[[], None],
    stop: Callable[[], bool],
) -> bool:
    """Train from ``progress.step`` to the end, in place; False if ``stop`` asked to end early.

    ``best`` receives the weights of the lowest validation loss. ``record`` takes one line of
    metrics; ``checkpoint`` saves everything. Losses are nats per token.

    Raises TrainingError, naming the step, for a loss that is not finite.
    """
    module = as_module(model)
    module.train()
    forward: Model = torch.compile(module) if recipe.compile else model  # type: ignore[assignment]
    while progress.step < recipe.steps:
        step = progress.step + 1
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step)
        batches = [
            dataset.random_batch(
                "train",
                size=recipe.batch_size,
                context=model.context,
                seed=derive(seed, "batches", step * recipe.accumulation + part),
            )
            for part in range(recipe.accumulation)
        ]
        with global_randomness(seed, "dropout", step):
            loss = optimizer_step(forward, optimizer, batches, recipe.gradient_clip, machine)
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss is {loss} at step {step}; the last good checkpoint is kept.",
                "Lower training.learning_rate, or set training.gradient_clip=1.0.",
            )
        progress.step = step
        metrics = {"loss_nats": loss, "learning_rate": recipe.rate(step)}
        if _is_spike(loss, progress.recent_losses):
            metrics["spike"] = True
        progress.recent_losses = [*progress.recent_losses[1 - RECENT :], loss]
        for hook in hooks:
            hook.after_step(step, metrics)
        if step % recipe.evaluate_every == 0 or step == recipe.steps:
            validation = validation_loss(model, dataset, recipe.batch_size, machine)
            metrics["validation_loss_nats"] = progress.final_loss_nats = validation
            if validation < progress.best_loss_nats:
                progress.best_loss_nats, progress.best_step = validation, step
                best.update({n: p.detach().clone() for n, p in module.named_parameters()})
        record({"step": step, **metrics})
        stopping = stop() and step < recipe.steps
        if stopping or (step % recipe.checkpoint_every == 0 and step < recipe.steps):
            checkpoint()
        if stopping:
            return False
    return True


def optimizer_step(
    model: Model,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    gradient_clip: float,
    machine: Machine,
) -> float:
    """One update from the mean gradient of ``batches``; returns the mean loss in nats per token.

    A loss that is not finite leaves the weights as they were.
    """
    total = 0.0
    for batch in batches:
        moved = machine.move(batch)
        with machine.precision():
            losses = model(moved).losses
        loss = losses.sum() / (moved["targets"] != IGNORED).sum() / len(batches)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    if math.isfinite(total):
        if gradient_clip > 0:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, gradient_clip)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total


def validation_loss(model: Model, dataset: Dataset, size: int, machine: Machine) -> float:
    """The full pass over the validation split, nats per token."""
    windows = dataset.windows("validation", context=model.context, size=size)
    return window_losses(model, windows, machine=machine).mean_nats


def as_module(model: Model) -> nn.Module:
    """The same object, as the module it also is."""
    assert isinstance(model, nn.Module)
    return model


def _is_spike(loss: float, recent: list[float]) -> bool:
    return len(recent) == RECENT and loss > SPIKE * sorted(recent)[RECENT // 2]
