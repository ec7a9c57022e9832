"""The training loop, on a page. Hooks observe; they never change a weight."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import nn

from swe_cli.contracts import IGNORED, Batch, Dataset, Model, Tensors
from swe_cli.errors import TrainingError, UsageError
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
    best_loss_nats: float | None = None  # None until the first evaluation
    final_loss_nats: float | None = None
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
    before_step: Callable[[int], None] = lambda step: None,
) -> bool:
    """Train from ``progress.step`` to the end, in place; False if ``stop`` asked to end early.

    ``best`` receives the weights of the lowest validation loss. ``record`` takes one line of
    metrics; ``checkpoint`` saves everything; ``before_step`` sees the gradients of a step that is
    about to be taken. Losses are nats per token.

    Raises TrainingError, naming the step, for a loss or a gradient that is not finite; the weights
    are then as the step found them.
    """
    module = as_module(model)
    module.train()
    forward: Model = torch.compile(module) if recipe.compile else model  # type: ignore[assignment]
    while progress.step < recipe.steps:
        step = progress.step + 1
        loss = training_step(
            forward,
            dataset,
            recipe,
            optimizer,
            step,
            seed=seed,
            machine=machine,
            before_step=partial(before_step, step),
        )
        progress.step = step
        metrics = {"loss_nats": loss, "learning_rate": recipe.learning_rate_at(step)}
        if _is_spike(loss, progress.recent_losses):
            metrics["spike"] = True
        progress.recent_losses = [*progress.recent_losses[1 - RECENT :], loss]
        for hook in hooks:
            hook.after_step(step, metrics)
        if step % recipe.evaluate_every == 0 or step == recipe.steps:
            validation = validation_loss(model, dataset, recipe.batch_size, machine)
            if not math.isfinite(validation):
                raise _stopped(f"validation loss is {validation}", step)
            metrics["validation_loss_nats"] = progress.final_loss_nats = validation
            if progress.best_loss_nats is None or validation < progress.best_loss_nats:
                progress.best_loss_nats, progress.best_step = validation, step
                best.update({n: p.detach().clone() for n, p in module.named_parameters()})
        record({"step": step, **metrics})
        stopping = stop() and step < recipe.steps
        if stopping or (step % recipe.checkpoint_every == 0 and step < recipe.steps):
            checkpoint()
        if stopping:
            return False
    return True


def training_step(
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    step: int,
    *,
    seed: int,
    machine: Machine,
    before_step: Callable[[], None] = lambda: None,
) -> float:
    """Step ``step`` of a training: its learning rate, its batches, its dropout. Mean loss, nats.

    Raises TrainingError, naming the step, for a loss or a gradient that is not finite.
    """
    for group in optimizer.param_groups:
        group["lr"] = recipe.learning_rate_at(step)
    batches = [
        dataset.random_batch(
            "train",
            size=recipe.batch_size,
            context=model.context,
            seed=derive(seed, "batches", step * recipe.accumulation + part),
        )
        for part in range(recipe.accumulation)
    ]
    try:
        with global_randomness(seed, "dropout", step, machine.device):
            return optimizer_step(
                model, optimizer, batches, recipe.gradient_clip, machine, before_step
            )
    except FloatingPointError as error:
        raise _stopped(str(error), step) from None


def optimizer_step(
    model: Model,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    gradient_clip: float,
    machine: Machine,
    before_step: Callable[[], None] = lambda: None,
) -> float:
    """One update from the mean gradient of ``batches``; returns the mean loss in nats per token.

    ``before_step`` is called with the whole gradient in place, before it is clipped.

    Raises FloatingPointError for a loss or a gradient that is not finite; the weights are then as
    they were.
    """
    total = 0.0
    for batch in batches:
        moved = machine.move(batch)
        with machine.precision():
            losses = model(moved).losses
        loss = losses.sum() / (moved["targets"] != IGNORED).sum() / len(batches)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if math.isfinite(total) and math.isfinite(norm):
        before_step()
        if gradient_clip > 0:
            nn.utils.clip_grads_with_norm_(parameters, gradient_clip, norm)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if not math.isfinite(total):
        raise FloatingPointError(f"loss is {total}")
    if not math.isfinite(norm):
        raise FloatingPointError(f"norm of the gradient is {float(norm)}")
    return total


def validation_loss(model: Model, dataset: Dataset, size: int, machine: Machine) -> float:
    """The full pass over the validation split, nats per token."""
    windows = dataset.windows("validation", context=model.context, size=size)
    return window_losses(model, windows, machine=machine).mean_nats


def as_module(model: Model) -> nn.Module:
    """The same object, as the module it also is."""
    assert isinstance(model, nn.Module)
    return model


def freeze(model: Model, trains: Literal["all"] | Sequence[str]) -> None:
    """Let only the roles that are trained have gradients. Raises UsageError for another's role."""
    check_roles(model.roles, [] if trains == "all" else trains, "training.trains")
    for name, parameter in as_module(model).named_parameters():
        parameter.requires_grad_(trains == "all" or model.role_of(name) in trains)


def check_roles(known: Sequence[str], asked: Iterable[str], key: str) -> None:
    """Raise UsageError for a role that the model does not have."""
    for role in asked:
        if role not in known:
            raise UsageError(
                f"{key}: this model has no {role}.", f"Its roles are {', '.join(known)}; or all."
            )


def _stopped(what: str, step: int) -> TrainingError:
    return TrainingError(
        f"The {what} at step {step}; the last good checkpoint is kept.",
        "Lower training.learning_rate, or set training.gradient_clip=1.0.",
    )


def _is_spike(loss: float, recent: list[float]) -> bool:
    return len(recent) == RECENT and loss > SPIKE * sorted(recent)[RECENT // 2]
