"""One rank over all tensors: the default of every criterion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from swe_cli.contracts import Counts, RankedScores, Surroundings, Within
from swe_cli.masks.rank import exact_count


@dataclass(frozen=True)
class Global:
    """The ``round(ratio · n)`` lowest scores of the whole prunable set, wherever they lie."""

    consults: ClassVar[Sequence[str]] = ()
    within: ClassVar[Within] = "tensor"
    probes: ClassVar[bool] = False

    def counts(self, ranked: RankedScores, ratio: float, around: Surroundings) -> Counts:
        return ranked.lowest(exact_count(ratio, ranked.total))
