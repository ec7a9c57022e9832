"""Training after the cut: a fresh optimizer, the mask enforced after every step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch.nn import functional as F

from swe_cli.contracts import IGNORED, Count, Learner, Model, Prediction, Setup
from swe_cli.pruning.masks import apply_masks
from swe_cli.records import Batch, Masks, Tensors
from swe_cli.training.recipe import build_optimizer
from swe_cli.training.state import Callback, TrainState

SHARE = "Write recovery.teacher_share=0.5"
Teacher = Callable[[], Model]  # makes the dense model, where one is asked


@dataclass
class EnforceMasks(Callback):
    """What was cut stays cut, whatever an optimizer did."""

    weights: Tensors
    masks: Masks

    def __post_init__(self) -> None:  # in the dtype and on the device of the weights: once
        self.masks = {name: mask.to(self.weights[name]) for name, mask in self.masks.items()}

    def after_step(self, state: TrainState, metrics: dict[str, Any]) -> None:
        if self.masks:
            apply_masks(self.masks, self.weights)


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """A fresh optimizer for a few steps. Zero steps is no recovery.

    The paper's: Adam 3e-4, 50 steps. Every cell sees the same batches, drawn from the run's seed.
    """

    steps: NonNegativeInt
    batch_size: Count | None  # null: that of the training
    optimizer: Literal["adamw", "adam"]
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    gradient_clip: NonNegativeFloat

    def learner(self, model: Model, teacher: Teacher) -> Learner:
        """What is trained: the model itself. Another recovery may put a loss of its own around."""
        return model

    def begin(self, setup: Setup, batch_size: int, teacher: Teacher, step: int = 0) -> TrainState:
        """A recovery of the live model; its batches are those after the first ``step``.

        What was frozen in training stays so. ``batch_size`` is that of the training.
        """
        weights, size = setup.model.parameters(), self.batch_size or batch_size
        optimizer = build_optimizer(weights, self.optimizer, self.weight_decay)
        state = TrainState(setup, optimizer, lambda step: self.learning_rate, size, step=step)
        state.gradient_clip, state.recovering = self.gradient_clip, True
        state.learner = self.learner(setup.model, teacher)
        return state


@dataclass(frozen=True, kw_only=True)
class NoRecovery(Recovery):
    """None, whatever number of steps an experiment or another recovery of an axis is given."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", 0)


@dataclass(frozen=True, kw_only=True)
class Distillation(Recovery):
    """``(1 − α) · CE + α · τ² · KL(teacher ‖ student)``, both softened by τ (Hinton et al. 2015).

    τ is ``temperature``, α ``teacher_share``; τ² keeps the gradients of both terms of one size. The
    teacher is the dense model that was cut, the control's its own: both see the same batches. It is
    distillation, the neighbour of RetriKT (arXiv 2310.15594), not RetriKT.
    """

    temperature: Annotated[float, Field(gt=0, description="Write recovery.temperature=2.0")]
    teacher_share: Annotated[float, Field(ge=0, le=1, description=SHARE)]

    def learner(self, model: Model, teacher: Teacher) -> Learner:
        dense, tau = teacher(), self.temperature

        def predict(batch: Batch) -> Prediction:
            """Losses (B, T) float32, the mixture; 0 where nothing has to be predicted."""
            learned: Prediction = model(batch)
            with torch.no_grad():
                taught: Prediction = dense(batch)
            ours, theirs = ((of.logits.float() / tau).log_softmax(-1) for of in (learned, taught))
            distance = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)
            distance = distance.masked_fill(batch["targets"] == IGNORED, 0.0) * tau**2
            return Prediction(learned.losses.lerp(distance, self.teacher_share), learned.logits)

        return predict
