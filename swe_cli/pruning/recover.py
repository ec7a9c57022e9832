"""Training after the cut, with the mask enforced after every step."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch

from swe_cli.contracts import Dataset, Lens, Masks, Model, Tensors
from swe_cli.errors import Interrupted, TrainingError, UsageError
from swe_cli.machine import Machine
from swe_cli.masks import masks as masking
from swe_cli.seeds import derive, global_randomness
from swe_cli.training.loop import as_module, optimizer_step
from swe_cli.training.recipe import build_optimizer


@dataclass(frozen=True)
class Watch:
    """What looks on: a progress bar, the user's Ctrl-C."""

    after_step: Callable[[int], None] = lambda step: None
    stop: Callable[[], bool] = lambda: False


UNWATCHED = Watch()


@dataclass(frozen=True)
class Enforced:
    """Masks held against live weights: what was cut stays cut, whatever an optimizer did."""

    weights: Tensors
    masks: Masks

    @classmethod
    def on(cls, model: Model, lens: Lens, masks: Masks) -> "Enforced":
        """``masks`` in the dtype and on the device of the weights: once, not at every step."""
        with torch.no_grad():
            weights = lens(dict(as_module(model).named_parameters()))
        return cls(weights, {name: mask.to(weights[name]) for name, mask in masks.items()})

    def __call__(self) -> None:
        if self.masks:
            masking.apply(self.masks, self.weights)


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

    def learner(self, model: Model, teacher: Callable[[], Model]) -> Model:
        """What is trained: the model itself. ``teacher`` makes the dense one, where one is asked.

        Another recovery may put a loss of its own around it.
        """
        return model

    def begin(
        self,
        model: Model,
        dataset: Dataset,
        lens: Lens,
        *,
        seed: int,
        machine: Machine,
        batch_size: int,
        teacher: Callable[[], Model],
        watch: Watch = UNWATCHED,
        done: int = 0,
    ) -> "Recovering":
        """A recovery of ``model``, in place, that has taken no step; its batches are those after
        the first ``done``. What was frozen in training stays so; ``lens`` picks what masks are for.
        """
        module = as_module(model)
        optimizer = build_optimizer(
            module.parameters(),
            self.optimizer,
            self.learning_rate,
            weight_decay=self.weight_decay,
        )
        return Recovering(
            self,
            model,
            self.learner(model, teacher) if self.steps else model,
            dataset,
            lens,
            optimizer,
            seed,
            machine,
            self.batch_size or batch_size,
            watch,
            done,
        )


@dataclass(frozen=True, kw_only=True)
class NoRecovery(Recovery):
    """None, whatever number of steps an experiment or another recovery of an axis is given."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "steps", 0)


@dataclass
class Recovering:
    """A recovery on its way. One optimizer, so that a cut in between does not start it anew."""

    recovery: Recovery
    model: Model
    learner: Model
    dataset: Dataset
    lens: Lens
    optimizer: torch.optim.Optimizer
    seed: int
    machine: Machine
    batch_size: int
    watch: Watch
    step: int = field(default=0)

    def run(self, steps: int, masks: Masks) -> None:
        """Take ``steps`` more. ``masks`` may be empty: then the dense model just trains on.

        Raises TrainingError, naming the step, for a loss or a gradient that is not finite.
        """
        as_module(self.model).train()
        enforce = Enforced.on(self.model, self.lens, masks)
        for step in range(self.step + 1, self.step + steps + 1):
            batch = self.dataset.random_batch(
                "train",
                size=self.batch_size,
                context=self.model.context,
                seed=derive(self.seed, "recovery", step),
            )
            try:
                with global_randomness(self.seed, "recovery_dropout", step, self.machine.device):
                    optimizer_step(
                        self.learner,
                        self.optimizer,
                        [batch],
                        self.recovery.gradient_clip,
                        self.machine,
                    )
            except FloatingPointError as error:
                raise TrainingError(
                    f"The {error} at recovery step {step}.", "Lower recovery.learning_rate."
                ) from None
            enforce()
            self.step = step
            self.watch.after_step(step)
            if self.watch.stop():
                raise Interrupted("Stopped during recovery; finished cells are safe.")
