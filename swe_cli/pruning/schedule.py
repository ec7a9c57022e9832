"""When the cut is made: at once, bit by bit, or in the middle of training."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Rounds = Annotated[int, Field(ge=1, description="Write schedule.rounds=5")]
AtStep = Annotated[int, Field(ge=0, description="Before the first step: schedule.at_step=0")]
Ramp = Literal["cubic", "linear"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """``rounds`` cuts, the k-th of ``ratio · (1 − (1 − k/n)^p)``; training goes on after each.

    ``ramp``: p = 3 for "cubic" (Zhu & Gupta 2018), 1 for "linear". The steps between cuts are those
    of the recovery, shared out evenly, so that one cut and many cost the same and are judged by the
    same control. With ``at_step`` the first cut is made after that step of training (0: before the
    first), the rest of training takes the place of the recovery, and the recovery follows whole.
    Every round scores anew what is left; what is cut stays cut.
    """

    rounds: Rounds
    ramp: Ramp = "cubic"
    at_step: AtStep | None = None

    def fraction(self, done: int) -> float:
        """Of the ratio, what is cut once ``done`` rounds (1..rounds) are done; 1 at the end."""
        left = 1 - done / self.rounds
        return 1 - left ** {"cubic": 3, "linear": 1}[self.ramp]

    def steps_of(self, done: int, steps: int) -> int:
        """Of ``steps``, those that follow the ``done``-th cut; they sum to ``steps``."""
        return steps * done // self.rounds - steps * (done - 1) // self.rounds


def one_shot() -> Schedule:
    """One cut of the finished model."""
    return Schedule(rounds=1)


def iterative(*, rounds: Rounds, ramp: Ramp) -> Schedule:
    """Cuts with the recovery's steps between them."""
    return Schedule(rounds=rounds, ramp=ramp)


def early(*, at_step: AtStep, rounds: Rounds, ramp: Ramp) -> Schedule:
    """Cuts from a step of training on, which goes on with the mask."""
    return Schedule(rounds=rounds, ramp=ramp, at_step=at_step)
