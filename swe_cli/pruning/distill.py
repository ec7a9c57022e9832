"""Recovery by distillation: the pruned model learns from the data and from the dense model."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from swe_cli.contracts import IGNORED, Batch, Model, Prediction
from swe_cli.errors import UsageError
from swe_cli.pruning.recover import Recovery


@dataclass(frozen=True, kw_only=True)
class Distillation(Recovery):
    """``(1 − α) · CE + α · τ² · KL(teacher ‖ student)``, both softened by τ (Hinton et al. 2015).

    τ is ``temperature``, α ``teacher_share``; τ² keeps the gradients of both terms of one size. The
    teacher is the dense model that was cut, the control's its own: both see the same batches.
    """

    temperature: float
    teacher_share: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise UsageError(
                f"recovery.temperature={self.temperature:g} must be positive.",
                "Write recovery.temperature=2.0",
            )
        if not 0.0 <= self.teacher_share <= 1.0:
            raise UsageError(
                f"recovery.teacher_share={self.teacher_share:g} is not in [0, 1].",
                "Write recovery.teacher_share=0.5",
            )

    def learner(self, model: Model, teacher: Callable[[], Model]) -> Model:
        return Taught(model, teacher(), self.temperature, self.teacher_share)  # type: ignore[return-value]


@dataclass(frozen=True)
class Taught:
    """A student whose losses are partly the distance to a teacher's predictions."""

    student: Model
    teacher: Model
    temperature: float
    share: float

    def __call__(self, batch: Batch) -> Prediction:
        """Losses (B, T) float32, the mixture; 0 where nothing has to be predicted."""
        learned = self.student(batch)
        with torch.no_grad():
            taught = self.teacher(batch)
        distance = F.kl_div(
            torch.log_softmax(learned.logits.float() / self.temperature, dim=-1),
            torch.log_softmax(taught.logits.float() / self.temperature, dim=-1),
            reduction="none",
            log_target=True,
        ).sum(-1)
        distance = distance.masked_fill(batch["targets"] == IGNORED, 0.0) * self.temperature**2
        return Prediction(torch.lerp(learned.losses, distance, self.share), learned.logits)
