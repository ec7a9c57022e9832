"""Another criterion's layer-by-layer counts, filled by this criterion's scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from swe_cli.contracts import Counts, RankedScores, Surroundings, Within
from swe_cli.masks.rank import exact_count


@dataclass(frozen=True, kw_only=True)
class Like:
    """Each tensor loses as many weights as ``criterion`` would take from it at a global rank.

    With ``criterion=random`` it tells whether a criterion's merit is in which weights it takes or
    only in how many from which layer.
    """

    within: ClassVar[Within] = "tensor"
    probes: ClassVar[bool] = False

    criterion: str

    @property
    def consults(self) -> Sequence[str]:
        return (self.criterion,)

    def counts(self, ranked: RankedScores, ratio: float, around: Surroundings) -> Counts:
        return around.rank_by(self.criterion).lowest(exact_count(ratio, ranked.total))
