"""N:M: of every M consecutive inputs of a row, N stay."""

from dataclasses import dataclass

from swe_cli.contracts import Pattern
from swe_cli.errors import UsageError
from swe_cli.ranking import Ranking, Within
from swe_cli.records import Counts, Masks


@dataclass(frozen=True, kw_only=True)
class NOfM(Pattern):
    """Keep the ``keep`` best of every ``of`` consecutive inputs; sparse tensor cores run 2:4.

    It fixes the ratio, 1 − keep / of, in every row alike. (Public scripts call the number that is
    *cut* N; 2:4 is the same in both.)
    """

    keep: int
    of: int

    def __post_init__(self) -> None:
        if not 0 < self.keep < self.of:
            raise UsageError(
                f"pattern.keep={self.keep} of pattern.of={self.of}: keep some, and not all.",
                "For example: pattern.keep=1 pattern.of=4",
            )

    @property
    def ratio(self) -> float:  # type: ignore[override]
        return 1 - self.keep / self.of

    @property
    def group(self) -> int:  # type: ignore[override]
        return self.of

    def masks(self, ranking: Ranking, counts: Counts, within: Within) -> Masks:
        return ranking.best_of(self.keep, self.of)


def two_of_four() -> NOfM:
    """Of every four consecutive inputs the two best stay: what sparse tensor cores run."""
    return NOfM(keep=2, of=4)


def four_of_eight() -> NOfM:
    """Of every eight consecutive inputs the four best stay: as sparse as 2:4, and freer."""
    return NOfM(keep=4, of=8)
