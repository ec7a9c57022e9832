"""What the extension groups promise. Between stages: plain data keyed by parameter name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from torch import Tensor

Tensors = dict[str, Tensor]
Scores = dict[str, Tensor]  # low score = pruned first
Masks = dict[str, Tensor]  # bool, True = kept
Counts = dict[str, int]  # how many weights each prunable tensor loses
# At least "tokens" and "targets", both int64 (B, T). With images: "images" uint8 (M, K, height,
# width) and "image" int64 (B,), which of them a row is about. "window" int64 (B,): rows of one
# window are resampled together; without it every row is a window.
Batch = dict[str, Tensor]
Lens = Callable[[Mapping[str, Tensor]], Tensors]  # picks the prunable part, as views

Split = Literal["train", "validation", "test"]
PrunableSet = Literal["linear", "all"]
UnitKind = Literal["neuron", "head"]
Within = Literal["tensor", "row"]  # among which scores a tensor's lowest are looked for

# What a calibration set can tell, beside the statistics of training, in a criterion's ``needs``.
# Of the loss, per weight: E[g], E[|W·g|] and E[g²] over samples, g the gradient of one sample.
GRADIENTS = ("mean_gradient", "mean_saliency", "mean_square_gradient")
# Of what a linear layer is fed: ‖X_j‖₂ per input; XᵀX.
INPUTS = ("input_norm", "input_gram")

IGNORED = -100  # a target nobody has to predict


class DataShape(NamedTuple):
    """What a model must know of its data. ``image``: (channels, height, width), or None."""

    vocabulary_size: int
    image: tuple[int, int, int] | None = None


class Prediction(NamedTuple):
    """``losses`` (B, T) nats, float32, 0 where the target is ``IGNORED``; ``logits`` (B, T, V)."""

    losses: Tensor
    logits: Tensor


class Model(Protocol):
    """A ``torch.nn.Module`` that the whole pipeline can hold without knowing which one it is.

    ``context``: text positions it can take. ``roles``: the names of its modules that can be
    trained, frozen and pruned apart.
    """

    context: int

    @property
    def roles(self) -> Sequence[str]: ...

    def __call__(self, batch: Batch) -> Prediction: ...

    def prunable(self, tensors: Mapping[str, Tensor], which: PrunableSet) -> Tensors:
        """Pick the prunable part of anything keyed by parameter name, as views.

        The same lens serves parameters, statistics, scores and gradients; names that ``tensors``
        lacks are left out. A fused matrix may be split into views with names of their own, which
        begin with the parameter's; tied weights appear once.
        """

    def role_of(self, name: str) -> str:
        """Which of ``roles`` a parameter, or a view of one, belongs to."""

    def blocks(self) -> Sequence[Any]:
        """The modules that layer-by-layer criteria walk, first to last."""

    def units(self, kind: UnitKind) -> "Sequence[Units]":
        """Its units of one kind, layer by layer: what can be taken out whole."""


@dataclass(frozen=True)
class Units:
    """Parallel units of one layer: the hidden neurons of an MLP, the heads of an attention.

    ``owned``: parameter name → (dimension, indices (units, n) along it) of what belongs to each.
    ``adds(weights)``: which units are the same whatever comes in, bool (units,), and what those add
    to the layer's output, (units, out). ``bias``: the parameter that this can be added to, or None.
    """

    layer: str
    owned: Mapping[str, tuple[int, Tensor]]
    adds: Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor]]
    bias: str | None

    def __len__(self) -> int:
        return len(next(iter(self.owned.values()))[1])


class Dataset(Protocol):
    """Windows of three splits. All randomness comes in as a seed."""

    sha256: str  # of the content, never of a path
    shape: DataShape

    def random_batch(self, split: Split, *, size: int, context: int, seed: int) -> Batch:
        """``size`` windows at random places of a split: the same seed, the same batch."""

    def windows(self, split: Split, *, context: int, size: int) -> Iterator[Batch]:
        """Every token of a split once, in order, in batches of ``size`` windows."""

    def steps_per_epoch(self, *, size: int, context: int) -> int:
        """Batches of ``size`` windows that make one pass over the training split, rounded up."""

    def fingerprint(self, split: Split, *, context: int) -> str:
        """Hash of data, split, window, stride, tokenizer: rows that differ are not compared."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt. Raises DataError for what the vocabulary does not hold."""

    def decode(self, ids: Sequence[int]) -> str: ...


@runtime_checkable
class RunningText(Dataset, Protocol):
    """A text, every token of which is predicted."""

    def characters(self, split: Split) -> int:
        """Characters the split's predicted tokens stand for (bits per character)."""


class Example(NamedTuple):
    """A question about an image. ``kind``: the type of question that accuracies are told by."""

    image: int
    question: str
    answer: str
    kind: str


@runtime_checkable
class Questions(Dataset, Protocol):
    """Questions about images; only answers are predicted. A window is an image."""

    separator: int  # the token between question and answer
    end: int  # the token that ends an answer
    answer_tokens: int  # of the longest answer, its end included

    @property
    def numeric(self) -> bool:
        """Whether every answer is a number."""

    def examples(self, split: Split, *, shuffle_images: int | None = None) -> Sequence[Example]:
        """In the order of ``windows``."""

    def windows(
        self, split: Split, *, context: int, size: int, shuffle_images: int | None = None
    ) -> Iterator[Batch]:
        """As in ``Dataset``. With a seed, each image of the split is replaced by another's."""

    def prompts(self, examples: Sequence[Example]) -> Batch:
        """The questions alone, filled up on the right: ``tokens`` and ``lengths`` int64 (B,)."""

    def about(self, image: Path, question: str) -> Batch:
        """The prompt of one question about an image file. Raises DataError for a bad one."""


class Statistic(Protocol):
    """A tensor per parameter, accumulated over training in O(1) memory, in place, float32."""

    def update(self, weights: Tensors, index: int, share: float) -> None:
        """See one observation. ``index`` counts from 1; ``share`` = a_i / Σ_{s≤i} a_s."""

    def state(self) -> Tensors:
        """The accumulated tensor per parameter: exactly what is saved and later scored."""

    def load(self, state: Tensors) -> None: ...


@runtime_checkable
class GradientStatistic(Statistic, Protocol):
    """A statistic that also sees gradients, while they belong to the weights they are taken at."""

    def before_step(self, weights: Tensors, gradients: Tensors) -> None:
        """See an optimizer step that is about to be taken, and will be observed."""


@dataclass(frozen=True)
class Evidence:
    """All that a criterion may look at, already reduced to the prunable tensors.

    ``weights``: those the mask will be put on (``base``). ``trajectory``: statistic → tensors.
    ``calibration``: what of ``GRADIENTS`` was asked for → tensors. ``seed``: for criteria that
    draw.
    """

    weights: Tensors
    trajectory: Mapping[str, Tensors] = field(default_factory=dict)
    seed: int = 0
    calibration: Mapping[str, Tensors] = field(default_factory=dict)


@runtime_checkable
class Criterion(Protocol):
    """An equation. ``needs`` names the statistics that training must have recorded, and what a
    calibration set must tell (``GRADIENTS``).
    """

    @property
    def needs(self) -> Sequence[str]: ...

    def score(self, evidence: Evidence) -> Scores:
        """Score every prunable weight, free of the ratio: one scoring serves every ratio."""


@dataclass
class LayerInputs:
    """What a linear layer was fed over the calibration set, X float32 (tokens, in).

    ``square_sum`` (in,) = Σ X_j²; ``gram`` (in, in) = XᵀX, where it was asked for.
    """

    square_sum: Tensor
    gram: Tensor | None = None

    @property
    def norm(self) -> Tensor:
        """‖X_j‖₂ (in,)."""
        return self.square_sum.sqrt()


class Choose(Protocol):
    """Says which weights of consecutive columns stay, by pattern, allocation and exact count.

    ``group``: how many consecutive columns must be asked about together; None: any number.
    """

    @property
    def group(self) -> int | None: ...

    def __call__(self, scores: Tensor, first: int) -> Tensor:
        """Scores (out, k) of the columns from ``first`` on → bool (out, k), True = kept.

        Every column is asked about once, left to right.
        """


@runtime_checkable
class LayerwiseCriterion(Protocol):
    """A criterion that judges a linear layer by what it is fed.

    Blocks are pruned first to last, each on what the pruned ones before it give: once per ratio.
    ``needs`` names what of ``INPUTS`` it reads.
    """

    @property
    def needs(self) -> Sequence[str]: ...

    def score_layer(self, weight: Tensor, inputs: LayerInputs) -> Tensor:
        """Scores (out, in), by which an allocation divides a ratio up between layers."""

    def prune_layer(self, weight: Tensor, inputs: LayerInputs, choose: Choose) -> Tensor:
        """Prune ``weight`` (out, in) in place; its mask, True = kept. Others may change too."""


@runtime_checkable
class DrawnCriterion(Protocol):
    """A criterion that draws its masks and finds its own sparsity: it is given no ratio, and asks
    no allocation or pattern. More rounds of a schedule cut more.
    """

    @property
    def needs(self) -> Sequence[str]: ...

    def draw(self, evidence: Evidence, turn: int) -> Masks:
        """Masks of the weights as they are, of round ``turn`` (1, 2, …) from the run's seed."""


class RankedScores(Protocol):
    """Scores that have been put in order; see ``swe_cli.masks.rank.Ranking``."""

    @property
    def scores(self) -> Scores: ...

    @property
    def sizes(self) -> dict[str, int]: ...

    @property
    def total(self) -> int: ...

    def lowest(self, count: int) -> Counts: ...

    def below(self, thresholds: Mapping[str, float]) -> Counts: ...

    def divided_by(self, divisors: Mapping[str, float]) -> "RankedScores": ...

    def masks(self, counts: Counts, within: Within = "tensor") -> Masks: ...

    def best_of(self, keep: int, of: int) -> Masks: ...


class Surroundings(Protocol):
    """What an allocation may ask about, beside the scores that it divides a ratio up between."""

    def rank_by(self, criterion: str) -> RankedScores:
        """The same weights by a criterion named in ``Allocation.consults``; where a pattern takes
        whole units, the same units.
        """

    def scores_by(self, criterion: str) -> Scores:
        """Its scores, weight by weight whatever the pattern."""

    def block_of(self, name: str) -> str:
        """The block that a tensor lies in; its own name where it lies in none."""

    def sensitivities(self) -> Mapping[str, float]:
        """How steep the loss is in each tensor: Σ |∂L along a random direction|, zeroth order."""


class Allocation(Protocol):
    """How many weights each tensor loses, and ``within`` what its lowest scores are looked for.

    ``consults``: other criteria it asks for their ranks. ``probes``: whether it asks for
    sensitivities, which take a calibration set.
    """

    @property
    def consults(self) -> Sequence[str]: ...

    @property
    def within(self) -> Within: ...

    @property
    def probes(self) -> bool: ...

    def counts(self, ranked: RankedScores, ratio: float, around: Surroundings) -> Counts:
        """Exact counts per tensor; their sum is ``round(ratio · n)``."""


@runtime_checkable
class StandInAllocation(Protocol):
    """A word for another allocation, which depends on the criterion."""

    def stands_for(self, criterion: Any) -> str:
        """The choice of the group that is meant."""


@runtime_checkable
class RateAllocation(Protocol):
    """An allocation that also takes the paper's multiplier of a standard deviation."""

    def counts_at_rate(self, ranked: RankedScores, rate: float) -> Counts: ...


class Pattern(Protocol):
    """Which masks are legal, weight by weight.

    ``ratio``: the only fraction it can cut, or None where any will do; the allocation is then not
    asked. ``group``: consecutive inputs that are judged together, or None.
    """

    @property
    def ratio(self) -> float | None: ...

    @property
    def group(self) -> int | None: ...

    def masks(self, ranked: RankedScores, counts: Counts, within: Within) -> Masks: ...


@runtime_checkable
class UnitPattern(Protocol):
    """A pattern that takes whole units out: ratios and counts are of units, layer by layer."""

    @property
    def unit(self) -> UnitKind: ...


@dataclass(frozen=True)
class Candidate:
    """One way in which a transform can rewrite a model.

    ``layers``: the names of the modules rewritten together. ``saves``: how many parameters fewer
    are then stored; not positive where memory is not saved.
    """

    layers: tuple[str, ...]
    rank: int
    saves: int


class Transform(Protocol):
    """Weights rewritten as others of the same model, under other names; no mask."""

    def candidates(self, prunable: Mapping[str, Tensor]) -> Sequence[Candidate]:
        """The grid among what may be cut, in the order of the model.

        Raises UsageError for options that do not fit, PruningError where nothing can be rewritten.
        """

    def apply(self, weights: Tensors, candidate: Candidate, seed: int) -> Tensors:
        """All of ``weights`` as named tensors that ``pruning.shrink.fit`` makes a model take.

        What is not rewritten is handed on, not copied. The same seed gives the same bits.
        """


J = TypeVar("J")
R = TypeVar("R")


class Launcher(Protocol):
    """Any flat map: runs jobs somewhere and hands back each result or the error it raised."""

    def map(
        self, function: Callable[[J], R], jobs: Sequence[J]
    ) -> Iterator[tuple[J, R | BaseException]]: ...


@dataclass(frozen=True)
class WindowLosses:
    """The loss of every evaluation window, kept so that two models are compared paired.

    ``nats`` float64 (N,): summed loss of a window. ``tokens`` int64 (N,): tokens predicted in it.
    """

    nats: np.ndarray[Any, np.dtype[np.float64]]
    tokens: np.ndarray[Any, np.dtype[np.int64]]

    @property
    def mean_nats(self) -> float:
        """Token-weighted mean loss, nats per token."""
        return float(self.nats.sum() / self.tokens.sum())
