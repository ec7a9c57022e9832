"""One rank over all tensors: the default of every criterion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from swe_cli.contracts import Counts, RankedScores
from swe_cli.masks.rank import exact_count


@dataclass(frozen=True)
class Global:
    """The ``round(ratio · n)`` lowest scores of the whole prunable set, wherever they lie."""

    consults: ClassVar[Sequence[str]] = ()

    def counts(
        self, ranked: RankedScores, ratio: float, rank_by: Callable[[str], RankedScores]
    ) -> Counts:
        return ranked.lowest(exact_count(ratio, ranked.total))
