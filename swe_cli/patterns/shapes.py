"""Which masks are legal: any, N:M, or of whole units."""

from dataclasses import dataclass

from swe_cli.contracts import Pattern
from swe_cli.errors import UsageError


class Unstructured(Pattern):
    """The lowest scores of each tensor, or of each row, exactly as many as allocated."""


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
            why = f"pattern.keep={self.keep} of pattern.of={self.of}: keep some, and not all."
            raise UsageError(why, "For example: pattern.keep=1 pattern.of=4")

    @property
    def ratio(self) -> float:  # type: ignore[override]
        return 1 - self.keep / self.of

    @property
    def group(self) -> int:  # type: ignore[override]
        return self.of


def two_of_four() -> NOfM:
    """Of every four consecutive inputs the two best stay: what sparse tensor cores run."""
    return NOfM(keep=2, of=4)


def four_of_eight() -> NOfM:
    """Of every eight consecutive inputs the four best stay: as sparse as 2:4, and freer."""
    return NOfM(keep=4, of=8)


class Neuron(Pattern):
    """A hidden neuron goes with its row of the first matrix and its column of the second.

    Its score is the norm of the scores of all its weights. The ratio is of neurons, all layers
    together or as the allocation says; the sparsity that comes out is of all prunable weights.
    ``swe prune`` then stores the smaller model.
    """

    unit = "neuron"


class Head(Pattern):
    """A head goes with its queries, keys, values and its columns of the projection.

    Its score is the norm of the scores of all its weights. The ratio is of heads, all layers
    together or as the allocation says; the sparsity that comes out is of all prunable weights.
    ``swe prune`` then stores the smaller model.
    """

    unit = "head"


class NeuronOutput(Pattern):
    """As ``neuron``, but its score is of its column of the second matrix alone: with Wanda
    ``‖h_u‖ · ‖W2[:, u]‖``, h_u what it computed over the calibration tokens.
    """

    unit, by_output = "neuron", True


class HeadOutput(Pattern):
    """As ``head``, but its score is of its columns of the projection alone."""

    unit, by_output = "head", True


class Block(Pattern):
    """A block goes with all its matrices, those of attention and MLP; what flows past them stays.

    Its score is the norm of the scores of all its weights; the ratio is of blocks, all towers
    together or, allocation=uniform, of each. ``swe prune`` then stores the shallower model.
    """

    unit = "block"
