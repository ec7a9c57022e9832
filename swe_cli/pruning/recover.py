"""Training after the cut, with the mask enforced after every step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from swe_cli.contracts import Dataset, Lens, Masks, Model
from swe_cli.errors import Interrupted, TrainingError, UsageError
from swe_cli.machine import Machine
from swe_cli.masks import masks as masking
from swe_cli.seeds import derive, global_randomness
from swe_cli.training.loop import as_module, optimizer_step
from swe_cli.training.recipe import build_optimizer


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """A fresh optimizer for a few steps. Zero steps is no recovery.

    The paper's: Adam 3e-4, 50 steps. Every cell sees the same batches, drawn from the run's seed.
    """

    steps: int
    batch_size: int | None  # null: that of the training
    optimizer: Literal["adamw", "adam"]
    learning_rate: float
    weight_decay: float
    gradient_clip: float

    def __post_init__(self) -> None:
        if self.steps < 0 or not self.learning_rate > 0:
            raise UsageError("recovery.steps must not be negative, its learning_rate positive.")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"recovery.batch_size={self.batch_size} must be at least 1, or null.")
        if self.weight_decay < 0 or self.gradient_clip < 0:
            raise UsageError("recovery.weight_decay and gradient_clip must not be negative.")

    def __call__(
        self,
        model: Model,
        masks: Masks,
        dataset: Dataset,
        lens: Lens,
        *,
        seed: int,
        machine: Machine,
        batch_size: int,
        after_step: Callable[[int], None] = lambda step: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Recover ``model`` in place. ``masks`` may be empty: then the dense model just trains on.
        What was frozen in training stays so; ``lens`` picks what the masks are for.

        Raises TrainingError, naming the step, for a loss or a gradient that is not finite.
        """
        module = as_module(model)
        module.train()
        optimizer = build_optimizer(
            module.parameters(),
            self.optimizer,
            self.learning_rate,
            weight_decay=self.weight_decay,
        )
        with torch.no_grad():
            weights = lens(dict(module.named_parameters()))
        masks = {name: mask.to(weights[name]) for name, mask in masks.items()}  # once, not a step
        for step in range(1, self.steps + 1):
            batch = dataset.random_batch(
                "train",
                size=self.batch_size or batch_size,
                context=model.context,
                seed=derive(seed, "recovery", step),
            )
            try:
                with global_randomness(seed, "recovery_dropout", step, machine.device):
                    optimizer_step(model, optimizer, [batch], self.gradient_clip, machine)
            except FloatingPointError as error:
                raise TrainingError(
                    f"The {error} at recovery step {step}.", "Lower recovery.learning_rate."
                ) from None
            if masks:
                masking.apply(masks, weights)
            after_step(step)
            if stop():
                raise Interrupted("Stopped during recovery; finished cells are safe.")
