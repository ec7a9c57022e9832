"""What the extension groups promise. Between stages: plain data keyed by parameter name.

A component may be a plain class with what its contract asks for; ``conform`` adds the defaults.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar, get_args

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from swe_cli.conform import conform
from swe_cli.device import Machine
from swe_cli.errors import PruningError, UsageError
from swe_cli.ranking import Ranking, Within
from swe_cli.records import Batch, Counts, Masks, Scores, Tensors

Lens = Callable[[Mapping[str, Tensor]], Tensors]  # picks the prunable part, as views
Learner = Callable[[Batch], "Prediction"]  # what is trained: a model, or a loss around one
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
PrunableSet = Literal["linear", "all"]
UnitKind = Literal["block", "neuron", "head"]  # what holds others before those

# What a calibration set can tell, beside the statistics of training, in a criterion's ``needs``.
# Of the loss, per weight: E[g], E[|W·g|] and E[g²] over samples, g the gradient of one sample.
GRADIENTS = ("mean_gradient", "mean_saliency", "mean_square_gradient")
# Of what a linear layer is fed: ‖X_j‖₂ per input; XᵀX; E X_j, and so Var X_j.
INPUTS = ("input_norm", "input_gram", "input_mean")
# Of what flows through a block, of each of its n weights: (1 − E cos(x_in, x_out)) / √n.
BLOCKS = ("block_influence",)

LOGITS = 1 << 25  # at most as many at once, of a batch of windows: 128 MiB of float32
IGNORED = -100  # a target nobody has to predict

# Bounds of options, which configuration checks and says.
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


# Models


class DataShape(NamedTuple):
    """What a model must know of its data. ``image``: (channels, height, width), or None."""

    vocabulary_size: int
    image: tuple[int, int, int] | None = None


class Prediction(NamedTuple):
    """``losses`` (B, T) nats, float32, 0 where the target is ``IGNORED``; ``logits`` (B, T, V)."""

    losses: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Units:
    """Parallel units of one layer: the hidden neurons of an MLP, the heads of an attention; or one
    block. Those of one ``layer`` are ranked, and counted, together: all blocks of a tower.

    ``owned``: parameter name → (dimension, indices (units, n) along it) of what belongs to each.
    ``output``: the one among them that a unit writes by, what it computed being its input, or None.
    ``adds(weights)``: which units are the same whatever comes in, bool (units,), and what those add
    to the layer's output, (units, out). ``bias``: the parameter that this is added to, if there is.
    """

    layer: str
    owned: Mapping[str, tuple[int, Tensor]]
    output: str | None
    adds: Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor]]
    bias: str | None

    def __len__(self) -> int:
        return len(next(iter(self.owned.values()))[1])


class Model(nn.Module):
    """A module that the whole pipeline can hold without knowing which one it is.

    ``context``: text positions of its windows, and unless it says a ``longest`` all it can take.
    ``roles``: the names of its modules that can be trained, frozen and pruned apart. ``prefix``: of
    all names here, where it wraps a model.
    """

    context: int
    longest: int | None = None
    roles: Sequence[str] = ("language",)
    prefix: ClassVar[str] = ""

    @abstractmethod
    def forward(self, batch: Batch) -> Prediction:
        """Losses and logits of windows (B, T)."""

    def prunable(self, tensors: Mapping[str, Tensor], which: PrunableSet) -> Tensors:
        """Pick the prunable part of anything keyed by parameter name, as views.

        Names that ``tensors`` lacks are left out; tied weights appear once. A fused matrix may be
        split into views, whose names begin with the parameter's. By default the matrices of linear
        layers inside blocks.
        """
        names, layers = (name for name, _ in self.named_parameters()), self.linear_layers()
        return {n: tensors[n] for n in names if n in tensors and (which == "all" or n in layers)}

    def linear_layers(self) -> dict[str, nn.Module]:
        """Layers inside blocks, by the name of a matrix that ``prunable`` shows as (out, in)."""
        names = {module: name for name, module in self.named_modules()}
        inside = (module for block in self.blocks() for module in block.modules())
        return {f"{names[m]}.weight": m for m in inside if isinstance(m, nn.Linear)}

    def fed(self, name: str, layer: nn.Module, given: tuple[Any, ...]) -> Mapping[str, Tensor]:
        """What a layer's matrix multiplies, (…, in), by its name, or by prunable ones, if apart."""
        return {name: given[0]}

    def role_of(self, name: str) -> str:
        """Which of ``roles`` a parameter, or a view of one, belongs to."""
        return self.roles[0]

    def blocks(self) -> Sequence[nn.Module]:
        """The modules that layer-by-layer criteria walk, first to last: the longest list of any."""
        lists = [list(module) for module in self.modules() if isinstance(module, nn.ModuleList)]
        return max(lists, key=len, default=[self])

    def units(self, kind: UnitKind) -> Sequence[Units]:
        """Its units of one kind, layer by layer: what can be taken out whole."""
        return ()

    def weights(self) -> Tensors:
        """The parameters themselves, by name, detached: what is changed in them changes it."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}


# Data


class Dataset:
    """Windows of three splits. All randomness comes in as a seed.

    ``sha256``: of content, never of a path. ``notes``: for a user.
    """

    sha256: str
    shape: DataShape
    questions: ClassVar[bool] = False
    notes: Sequence[str] = ()

    @abstractmethod
    def random_batch(self, split: Split, *, size: int, context: int, seed: int) -> Batch:
        """``size`` windows at random places of a split: the same seed, the same batch."""

    @abstractmethod
    def windows(self, split: Split, *, context: int, size: int) -> Iterator[Batch]:
        """Every token of a split once, in order, in batches of ``size`` windows."""

    @abstractmethod
    def steps_per_epoch(self, *, size: int, context: int) -> int:
        """Batches of ``size`` windows that make one pass over the training split, rounded up."""

    @abstractmethod
    def fingerprint(self, split: Split, *, context: int) -> str:
        """Hash of all that a loss depends on: rows that differ are not compared."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt. Raises DataError for what the vocabulary does not hold."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """What ids spell."""

    def characters(self, split: Split) -> int | None:
        """Characters the split's predicted tokens stand for (bits per character), if it is text."""
        return None


class Tokenizer:
    """Ids run from 0 to ``vocabulary_size`` − 1. ``sha256``: hex, of all that decides an id.

    ``unknown``: the id of whatever the vocabulary does not hold, where there is one. ``whole``:
    whether a text in pieces would get other ids than in one. ``bos``: what can begin a text, which
    ``encode`` leaves out; ``begins``: whether it is usual. ``ends``: its own tokens after a
    question, and after an answer; None: two more are added for them.
    """

    __slots__ = ()
    vocabulary_size: int
    sha256: str
    unknown: int | None = None
    whole: bool = False
    bos: int | None = None
    begins: bool = False
    ends: tuple[int, int] | None = None

    @abstractmethod
    def encode(self, text: str) -> np.ndarray[Any, np.dtype[np.uint32]]:
        """Ids (N,). Raises DataError naming what the vocabulary does not hold."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str: ...


class Example(NamedTuple):
    """A question about an image. ``kind``: the type of question that accuracies are told by."""

    image: int
    question: str
    answer: str
    kind: str


class Questions(Dataset):
    """Questions about images; only answers are predicted. A window is an image.

    ``separator``: the token between question and answer; ``end`` ends an answer;
    ``answer_tokens``: of the longest, its end included; ``numeric``: whether all are numbers.
    """

    questions = True
    separator: int
    end: int
    answer_tokens: int
    numeric: bool

    @abstractmethod
    def examples(self, split: Split, *, shuffle_images: int | None = None) -> Sequence[Example]:
        """In the order of ``windows``."""

    @abstractmethod
    def windows(
        self, split: Split, *, context: int, size: int, shuffle_images: int | None = None
    ) -> Iterator[Batch]:
        """As in ``Dataset``. With a seed, each image of the split is replaced by another's."""

    @abstractmethod
    def prompts(self, examples: Sequence[Example]) -> Batch:
        """The questions alone, filled up on the right: ``tokens`` and ``lengths`` int64 (B,)."""

    @abstractmethod
    def about(self, image: Path, question: str) -> Batch:
        """The prompt of one question about an image file. Raises DataError for a bad one."""


@dataclass
class Setup:
    """A live model, the data it is trained and judged on, the device, and the seed of its run."""

    model: Model
    dataset: Dataset
    machine: Machine
    seed: int

    def random_batch(self, split: Split, size: int, seed: int) -> Batch:
        """Windows as long as the model's context, at random places of a split."""
        return self.dataset.random_batch(split, size=size, context=self.model.context, seed=seed)

    def windows(self, split: Split, size: int, **how: Any) -> Iterator[Batch]:
        """All of a split, at most ``size`` windows a batch, and ``LOGITS`` numbers of a model's."""
        cut = self.cut(**how)
        most = max(1, LOGITS // (cut["context"] * self.dataset.shape.vocabulary_size))
        return self.dataset.windows(split, size=min(size, most), **cut)

    def cut(self, *, window: int | None = None, **how: Any) -> dict[str, Any]:
        """What its data are told of windows. UsageError where they, or the model, cannot."""
        window, longest = window or self.model.context, self.model.longest or self.model.context
        if "bos" in how and self.dataset.questions:
            raise UsageError("Only texts are cut into other windows.", "Write evaluation=test")
        if window > longest:
            why = f"A window of {window:,} tokens is longer than the model's {longest:,} positions."
            raise UsageError(why, f"Write evaluation.window={longest}")
        return {"context": window, **how}

    def mean_loss(self, batch: Batch, learner: Learner | None = None) -> Tensor:
        """Nats per predicted token of a batch on the device; by the model, or by what trains it."""
        with self.machine.precision():
            losses = (learner or self.model)(batch).losses
        mean: Tensor = losses.sum() / (batch["targets"] != IGNORED).sum()
        return mean


# The trajectory


class Statistic:
    """A tensor per parameter, accumulated over training in O(1) memory, in place, float32.

    Made from the live weights. ``states``: suffix of a stored name → tensors by parameter name.
    """

    states: Mapping[str, Tensors] = {}

    def sees(self, moment: Literal["before_step", "after_step"]) -> bool:
        """Whether it defines that method, for which gradients, or the optimizer's, are gathered."""
        return getattr(type(self), moment) is not getattr(Statistic, moment)

    def expect(self, observations: int, of_run: float) -> None:
        """Know how many observations there will be, and how many a whole run would have."""

    def before_step(self, weights: Tensors, gradients: Tensors, share: float) -> None:
        """See a step before it is taken: unclipped gradients, and the ``share`` of ``update``."""

    def after_step(self, optimizer: Mapping[str, Tensors]) -> None:
        """See what the optimizer keeps after an observed step: slot → tensors by parameter name."""

    @abstractmethod
    def update(self, weights: Tensors, index: int, share: float) -> None:
        """See one observation. ``index`` counts from 1; ``share`` = a_i / Σ_{s≤i} a_s."""

    def state(self) -> Tensors:
        """The accumulated tensor per parameter: exactly what is saved and later scored."""
        return {name + end: t for end, of in self.states.items() for name, t in of.items()}

    def load(self, state: Tensors) -> None:
        """Go on from what ``state`` gave."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


# Criteria, allocations, patterns


@dataclass(frozen=True)
class Evidence:
    """All that a criterion may look at, already reduced to the prunable tensors; to be read only,
    since all criteria are shown the same.

    ``weights``: those the mask will be put on (``base``). ``trajectory``: statistic → tensors.
    ``calibration``: those of ``GRADIENTS`` asked for → tensors. ``seed``: for those that draw.
    """

    weights: Tensors
    trajectory: Mapping[str, Tensors] = field(default_factory=dict)
    seed: int = 0
    calibration: Mapping[str, Tensors] = field(default_factory=dict)


class Criterion:
    """What says which weights go; what it judges, ``granularity``, is one of three.

    ``needs``: statistics of the training, of ``GRADIENTS``, ``INPUTS`` or ``BLOCKS``.
    ``published``: its allocation. ``by_output``: units are judged as with a pattern that says so,
    whatever it says. ``unit``: the only ones that it can judge, if any.
    """

    granularity: ClassVar[Literal["weight", "layer", "mask"]]
    needs: Sequence[str] = ()
    published: str = "global"
    updates_weights: bool = False
    by_output: bool = False
    unit: UnitKind | None = None


class WeightCriterion(Criterion):
    """An equation: scores of all weights, free of the ratio, so that one scoring serves all."""

    granularity = "weight"

    @abstractmethod
    def score(self, evidence: Evidence) -> Scores:
        """Score every prunable weight; low is cut first."""


@dataclass
class LayerInputs:
    """What a linear layer was fed over the calibration set, X float32 (tokens, in).

    ``square_sum`` (in,) = Σ X_j²; ``gram`` (in, in) = XᵀX, where it was asked for; ``sum`` (in,) =
    Σ X_j over so many ``tokens``.
    """

    square_sum: Tensor
    gram: Tensor | None = None
    sum: Tensor | None = None
    tokens: int = 0

    def hessian(self, who: str) -> Tensor:
        """A copy of ``gram``. PruningError, naming ``who`` asks, where it is not finite."""
        assert self.gram is not None
        if not self.gram.isfinite().all():
            advice = "Prune a model whose loss is: base=best, or train anew."
            raise PruningError(f"{who}: the inputs of a layer are not finite.", advice)
        return self.gram.clone()

    @property
    def norm(self) -> Tensor:
        """‖X_j‖₂ (in,)."""
        return self.square_sum.sqrt()

    @property
    def mean(self) -> Tensor:
        """E X_j (in,)."""
        assert self.sum is not None
        return self.sum / self.tokens


class Choose(Protocol):
    """Says which weights of consecutive columns of a layer stay; once, left to right."""

    @property
    def group(self) -> int | None:
        """How many consecutive columns must be asked about together; None: any number."""

    def __call__(self, scores: Tensor, first: int) -> Tensor:
        """Scores (out, k) of columns from ``first`` on → bool, True = kept."""


class LayerCriterion(Criterion):
    """A criterion that judges a linear layer by what it is fed (``needs``: what of ``INPUTS``).

    Blocks are pruned first to last, each on what the pruned ones before it give: once per ratio.
    ``compensates``: what units that go added on average is put into the bias of the layer's output.
    """

    granularity = "layer"
    published = "uniform"
    compensates: bool = False

    @abstractmethod
    def score_layer(self, weight: Tensor, inputs: LayerInputs) -> Tensor:
        """Scores (out, in), by which an allocation divides a ratio up between layers."""

    @abstractmethod
    def prune_layer(self, weight: Tensor, inputs: LayerInputs, choose: Choose) -> Tensor:
        """Prune ``weight`` (out, in) in place; its mask, True = kept. Others may change too."""


class DrawnCriterion(Criterion):
    """Draws its masks, and finds its own sparsity: no ratio, allocation or pattern. More rounds of
    a schedule cut more.
    """

    granularity = "mask"

    @abstractmethod
    def draw(self, evidence: Evidence, round: int) -> Masks:
        """Masks of the weights as they are, of round 1, 2, … of a schedule, from the run's seed."""


class Update:
    """What the weights that a mask keeps become, whoever chose it; ``needs``: what of ``INPUTS``.

    Asked matrix by matrix, first to last; every block on what updated ones before it give.
    """

    needs: Sequence[str] = ("input_gram",)

    @abstractmethod
    def solve(self, weight: Tensor, kept: Tensor, inputs: LayerInputs) -> Tensor:
        """New weights (out, in) of uncut ones and their mask, True = kept, neither to be changed.
        Where it cuts they become zero, whatever is given there.
        """


def criterion_of(component: Any, name: str) -> Criterion:
    """A criterion by what it can do: draw masks, prune layers, or score weights."""
    by_method: dict[str, type[Any]] = {"draw": DrawnCriterion, "prune_layer": LayerCriterion}
    contracts = (contract for method, contract in by_method.items() if hasattr(component, method))
    criterion: Criterion = conform(component, next(contracts, WeightCriterion), name)
    return criterion


@dataclass(frozen=True)
class AllocationContext:
    """What an allocation may ask, beside the scores that it divides a ratio up between.

    ``rank_by(criterion)``: the same weights (or whole units, where a pattern takes those) by one
    named in ``consults``; ``scores_by``: its scores, always by weight. ``blocks``: their names in
    the model. ``sensitivities()``: Σ |∂L along a random direction| of each tensor, zeroth order.
    """

    rank_by: Callable[[str], Ranking]
    scores_by: Callable[[str], Scores]
    blocks: Sequence[str]
    sensitivities: Callable[[], Mapping[str, float]]

    def block_of(self, name: str) -> str:
        """The block that a tensor lies in; its own name where it lies in none."""
        inside = (block for block in self.blocks if f"{name}.".startswith(f"{block}."))
        return next(inside, name)


class Allocation:
    """How many weights each tensor loses, and ``within`` what its lowest scores are looked for.

    ``consults``: criteria whose ranks it asks. ``probes``: whether it asks for sensitivities,
    which take a calibration set.
    """

    consults: Sequence[str] = ()
    within: Within = "tensor"
    probes: bool = False

    @property
    def takes_rate(self) -> bool:
        """Whether it can count by the paper's multiplier of a standard deviation."""
        return type(self).counts_at_rate is not Allocation.counts_at_rate

    @abstractmethod
    def counts(self, ranking: Ranking, ratio: float, context: AllocationContext) -> Counts:
        """Exact counts per tensor; their sum is ``round(ratio · n)``."""

    def counts_at_rate(self, ranking: Ranking, rate: float) -> Counts:
        """Counts per tensor at a rate, where ``takes_rate``; else a UsageError."""
        raise UsageError("This allocation shares out a ratio, not a rate.", "Write ratio=0.5")

    def stands_for(self, criterion: Criterion) -> str | None:
        """The choice of the group that is meant by a word for another; None where this one is."""
        return None


class Pattern:
    """Which masks are legal, weight by weight.

    ``ratio``: the only fraction it can cut, no allocation asked; None: any. ``group``: how many
    consecutive inputs are judged together. ``unit``: what is taken out whole; counts are of units.
    ``by_output``: a unit is judged by the scores of its output matrix, not of all its weights.
    """

    ratio: float | None = None
    group: int | None = None
    unit: UnitKind | None = None
    by_output: bool = False

    def masks(self, ranking: Ranking, counts: Counts, within: Within) -> Masks:
        """Masks that cut exactly ``counts``."""
        return ranking.masks(counts, self.group or within)


# Transforms, launchers, trackers


@dataclass(frozen=True)
class Candidate:
    """A rewrite of the modules ``layers`` together, which stores ``saves`` parameters fewer, as it
    must; not so one of ``rank`` 0, which has no factors.
    """

    layers: tuple[str, ...]
    rank: int
    saves: int


class Transform:
    """Weights rewritten as others of the same model, under other names; no mask."""

    @abstractmethod
    def candidates(self, prunable: Mapping[str, Tensor]) -> Sequence[Candidate]:
        """The grid, in order. UsageError for unfit options, PruningError where there is none."""

    @abstractmethod
    def apply(self, weights: Tensors, candidate: Candidate, seed: int) -> Tensors:
        """All of ``weights``, some rewritten, as tensors that ``pruning.shrink.fit`` makes a model
        take. What is not rewritten is not copied. The same seed gives the same bits.
        """

    def start(self, setup: Setup, candidate: Candidate) -> None:
        """Change the live model, which holds what ``apply`` gave, by data; without gradients."""

    def learner(self, model: Model, learner: Learner) -> Learner:
        """What recovery trains; a loss of its own may be put around recovery's ``learner``."""
        return learner


R = TypeVar("R")


class Launcher:
    """Runs jobs that can be pickled, ``slots`` of them at once.

    ``in_process``: each runs while it is submitted, where a progress bar can look on. ``lost``:
    what the future of a job raises whose worker died, which says nothing of the job.
    """

    slots: int = 1
    in_process: bool = False
    lost: tuple[type[BaseException], ...] = ()

    def start(self, threads: int) -> None:
        """Make ready for jobs that compute with so many threads each."""

    @abstractmethod
    def submit(self, function: Callable[..., R], job: Any) -> "Future[R]":
        """Have ``function(job)`` run, of which ``job.does`` are hashes of what comes of it. Workers
        that can be asked to stop hand it ``stop``, too.
        """

    def look(self) -> None:
        """Called now and then: time to send what was submitted, and to see what came of it."""

    def close(self, *, now: bool) -> None:
        """There are no more jobs; ``now``: those that run are asked to stop, too."""


Plain = Mapping[str, Any]
Points = Sequence[tuple[int, Mapping[str, float]]]  # steps, in order, with what was measured


class Tracker:
    """Where people look at runs, one after another. What it raises is a warning, no more."""

    @abstractmethod
    def start(self, name: str, folder: Path, config: Plain, step: int) -> None:
        """Open a run, or go on with the one of that name; ``step`` is the first that is logged."""

    @abstractmethod
    def log(self, points: Points) -> None:
        """Each step comes once."""

    def table(self, path: Path) -> None:
        """The CSV of a sweep, a row a cell; the same in Markdown lies beside it."""

    @abstractmethod
    def finish(self) -> None:
        """Close the run, whole or interrupted."""
