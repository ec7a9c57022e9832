"""What a calibration set tells of a model: gradients, the inputs of its layers, its steepness."""

import inspect
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from swe_cli.conform import calling
from swe_cli.contracts import (
    GRADIENTS,
    IGNORED,
    Count,
    LayerCriterion,
    LayerInputs,
    Lens,
    Model,
    Pattern,
    Setup,
    Update,
)
from swe_cli.errors import PruningError
from swe_cli.evaluation.loss import evaluating
from swe_cli.ranking import Ranking, Within
from swe_cli.records import Batch, Counts, Masks, Scores, Tensors
from swe_cli.seeds import derive

PROBE_SAMPLES = 32  # of the calibration set, for zeroth-order sensitivities
PROBE_STEP = 1e-3  # ε


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Seeded samples of the *training* split. ``inputs``: whether a layer is judged by what the
    pruned blocks before it give, or by what the dense ones would. ``context``: their length.
    """

    samples: Annotated[int, Field(ge=2, description="For example: calibration.samples=128")]
    batch_size: Count
    inputs: Literal["pruned", "dense"]
    context: Count | None = None

    def batches(self, setup: Setup, size: int, most: int | None = None) -> list[Batch]:
        """At most ``size`` rows each, all of one length, with nothing filled up; on the device.

        With ``most`` only the first so many samples, as they were drawn: of all lengths.
        """
        seed, context = derive(setup.seed, "calibration"), self.context or setup.model.context
        drawn = setup.dataset.random_batch("train", size=self.samples, context=context, seed=seed)
        places = torch.arange(1, drawn["targets"].shape[1] + 1)
        lengths = ((drawn["targets"] != IGNORED) * places).amax(1)[:most]
        return [
            setup.machine.move(_rows_of(drawn, rows, int(length)))
            for length in torch.unique(lengths)
            for rows in (lengths == length).nonzero()[:, 0].split(size)
        ]


Call = inspect.BoundArguments  # of a block in one forward pass; the first is what flows through
Calls = dict[nn.Module, tuple[Call, Any]]  # by block, with what each gives
Asking = LayerCriterion | Update
Fed = tuple[str, LayerInputs]  # a prunable name, and what its layer is fed


@dataclass
class CalibratedModel:
    """A live model, which must hold the weights that are judged, and its calibration set."""

    setup: Setup
    calibration: Calibration
    lens: Lens

    @cached_property
    def gradients(self) -> dict[str, Tensors]:
        """``GRADIENTS`` of every prunable weight, over single samples, in one pass."""
        parameters = dict(self.setup.model.named_parameters())
        sums = {of: {n: torch.zeros_like(p) for n, p in parameters.items()} for of in GRADIENTS}
        single = self.calibration.batches(self.setup, 1)
        part = 1 / len(single)
        with evaluating(self.setup.model), ExitStack() as after:
            for parameter in parameters.values():  # of what was frozen, too
                after.callback(parameter.requires_grad_, parameter.requires_grad)
                parameter.requires_grad_(True)
            for batch in single:
                loss, weights = self.setup.mean_loss(batch), [*parameters.values()]
                gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
                for (name, weight), gradient in zip(parameters.items(), gradients, strict=True):
                    saliency = (gradient * weight.detach()).abs_()
                    sums["mean_gradient"][name].add_(gradient, alpha=part)
                    sums["mean_saliency"][name].add_(saliency, alpha=part)
                    sums["mean_square_gradient"][name].addcmul_(gradient, gradient, value=part)
        # On the CPU, where all evidence lies.
        return {of: self.lens({n: t.cpu() for n, t in sums[of].items()}) for of in GRADIENTS}

    @cached_property
    def influence(self) -> Tensors:
        """``BLOCKS`` of every prunable weight, over all tokens; ∞ of what lies in no such block."""
        model, names = self.setup.model, {m: name for name, m in self.setup.model.named_modules()}
        turned: dict[str, list[Tensor]] = {}
        with torch.no_grad(), evaluating(model):
            for batch in self.calibration.batches(self.setup, self.calibration.batch_size):
                for block, (call, output) in self._calls(model.blocks(), batch).items():
                    x = next(iter(call.arguments.values()))
                    if x.shape == output.shape:
                        cosines = torch.cosine_similarity(x.float(), output.float(), dim=-1)
                        turned.setdefault(names[block], []).append(1 - cosines.flatten())
        influence = {n: torch.full(view.shape, math.inf) for n, view in self._views().items()}
        for name, of in turned.items():
            inside = [score for n, score in influence.items() if n.startswith(f"{name}.")]
            root = math.sqrt(sum(score.numel() for score in inside))
            for score in inside:
                score.fill_(float(torch.cat(of).mean()) / root)
        return influence

    @torch.no_grad()
    def dense_scores(self, criterion: LayerCriterion) -> Scores:
        """What the criterion gives every prunable weight on what dense layers are fed."""
        views, walk = self._views(), self._walk(criterion, pruned=False)
        scores = {name: criterion.score_layer(views[name], inputs) for name, inputs in walk}
        return {name: scores[name] for name in views}

    @torch.no_grad()
    def prune(
        self, by: LayerCriterion, counts: Counts, pattern: Pattern, within: Within, earlier: Masks
    ) -> Masks:
        """Prune the live model block by block, exactly ``counts``; weights may be updated.

        What the masks of ``earlier`` rounds have cut goes first, and is among the counts.
        """
        views, masks = self._views(), Masks()
        for name, inputs in self._visit(by):
            weight = views[name]
            kept = earlier.get(name, torch.ones(weight.shape, dtype=torch.bool)).to(weight.device)
            choose = ChooseOfLayer(weight, counts[name], pattern, within, kept)
            masks[name] = by.prune_layer(weight, inputs, choose).cpu()
        return {name: masks[name] for name in views}

    @torch.no_grad()
    def update(self, how: Update, who: str, uncut: Tensors, masks: Masks) -> None:
        """Make of the live model what ``how``, called ``who``, makes of the ``uncut`` weights under
        ``masks``, block by block. What is no matrix of a block is masked, no more.
        """
        views = self._views()
        for name, view in views.items():
            view.copy_(uncut[name])
        known = {layer for block in self._layers() for layer in block}
        matrices = [name for name in views if name.partition("[")[0] in known]
        if not matrices:
            why = f"{who} finds no matrix of a block among what may be cut."
            raise PruningError(why, "Widen it, prunable=linear roles=all, or write update=none")
        visited = self._visit(how, matrices)
        for name in views.keys() - {*matrices}:
            views[name].mul_(masks[name].to(views[name].device))
        for name, inputs in visited:
            view, kept = views[name], masks[name].to(views[name].device)
            if kept.all():
                continue
            with calling(who):
                solved = how.solve(view, kept, inputs)
                if solved.shape != view.shape or not solved[kept].isfinite().all():
                    raise PruningError(f"{who} gave {name} another shape, or what is no number.")
            view.copy_(solved.masked_fill(~kept, 0.0))

    @torch.no_grad()
    def compensate(self, criterion: LayerCriterion, masks: Masks) -> None:
        """Cut matrices of the live model as ``masks`` say, block by block; what the cut columns of
        each added on average, W[:, cut] · E[x], goes into the bias, a new one where there is none.
        """
        views = self._views()
        for name, inputs in self._visit(criterion, masks):
            weight, layer = views[name], self.setup.model.get_submodule(name.rpartition(".")[0])
            kept = masks[name].to(weight.device)
            added = (weight * ~kept) @ inputs.mean
            trains = layer.get_parameter("weight").requires_grad
            if "bias" not in dict(layer.named_parameters()):
                layer.register_parameter("bias", nn.Parameter(torch.zeros_like(added), trains))
            layer.get_parameter("bias").add_(added)
            weight.mul_(kept)

    @cached_property
    def sensitivities(self) -> dict[str, float]:
        """Σ over batches of |L(θ + εz) − L(θ − εz)| / 2ε per prunable tensor θ, z ~ N(0, I).

        Zeroth order, as ECoFLaP measures them (arXiv 2310.02998); θ is restored from a copy.
        """
        sensitivities: dict[str, float] = {}
        size = self.calibration.batch_size
        batches = self.calibration.batches(self.setup, size, most=PROBE_SAMPLES)
        with torch.no_grad(), evaluating(self.setup.model):
            for name, weight in self._views().items():
                saved, total = weight.clone(), 0.0
                for place, batch in enumerate(batches):
                    seed = derive(self.setup.seed, f"probe/{name}", place)
                    generator = torch.Generator().manual_seed(seed)
                    step = torch.randn(weight.shape, generator=generator).to(weight) * PROBE_STEP
                    losses = []
                    for moved in (saved + step, saved - step):
                        weight.copy_(moved)
                        losses.append(float(self.setup.mean_loss(batch)))
                    weight.copy_(saved)
                    total += abs(losses[0] - losses[1]) / (2 * PROBE_STEP)
                sensitivities[name] = total
        return sensitivities

    def _views(self) -> Tensors:
        return self.lens(self.setup.model.weights())

    def _layers(self) -> list[dict[str, nn.Module]]:
        """The layers of every block, by the name of their matrix."""
        layers = self.setup.model.linear_layers().items()
        inside = ({*block.modules()} for block in self.setup.model.blocks())
        return [{name: m for name, m in layers if m in of} for of in inside]

    def _visit(self, asking: Asking, names: Iterable[str] | None = None) -> Iterable[Fed]:
        """The walk of who changes what it visits; on dense inputs all is seen before that."""
        pruned = self.calibration.inputs == "pruned"
        walk = self._walk(asking, names, pruned=pruned)
        return walk if pruned else list(walk)

    def _walk(
        self, asking: Asking, names: Iterable[str] | None = None, *, pruned: bool
    ) -> Iterator[Fed]:
        """The prunable ``names``, by default all, in the linear layers of every block, first to
        last, each with what its layer is fed.

        With ``pruned`` a block is run again once its names were visited, so that the next one sees
        what the pruned one gives. Only the inputs of one block are held at a time.
        """
        inside: dict[str, list[str]] = {}
        for name in self._views() if names is None else names:
            inside.setdefault(name.partition("[")[0], []).append(name)
        model, layers = self.setup.model, self._layers()
        blocks = list(model.blocks())
        if lost := inside.keys() - {name for block in layers for name in block}:
            why = f"What judges layers by their inputs, as Wanda does, cannot score {min(lost)}."
            hint = "It, and allocation=owl, know the matrices of blocks: prunable=linear"
            raise PruningError(why, hint)
        batches = self.calibration.batches(self.setup, self.calibration.batch_size)
        calls: list[Call] = []
        with evaluating(model):
            follows = self._follows(blocks, batches[0])
            for place, block in enumerate(blocks):
                visited = {name: m for name, m in layers[place].items() if name in inside}
                if not follows[place]:
                    calls = [self._calls([block], batch)[block][0] for batch in batches]
                with watching(model, visited, "input_gram" in asking.needs) as fed:
                    outputs = self._run(block, calls)
                for layer in visited:
                    for name in inside[layer]:
                        yield name, fed[name if name in fed else layer]
                if pruned and visited:
                    outputs = self._run(block, calls)
                for call, output in zip(calls, outputs, strict=True):
                    call.arguments[next(iter(call.arguments))] = output  # fed to the next, alike

    def _follows(self, blocks: Sequence[nn.Module], batch: Batch) -> list[bool]:
        """Whether a block is fed what the one before gave, and was fed: no pass starts anew."""
        flow, follows = self._calls(blocks, batch), [False]
        for before, block in pairwise(blocks):
            (earlier, output), (call, _) = flow[before], flow[block]
            expected = [output, *[*earlier.args, *earlier.kwargs.values()][1:]]
            given = [*call.args, *call.kwargs.values()]
            follows.append([*map(id, given)] == [*map(id, expected)])
        return follows

    def _calls(self, blocks: Sequence[nn.Module], batch: Batch) -> Calls:
        """How blocks are called in a pass, which ends with the last one, and what each gives."""
        calls: Calls = {}

        def note(block: nn.Module, args: Sequence[Any], named: dict[str, Any], output: Any) -> None:
            call = inspect.signature(block.forward).bind(*args, **named)
            calls[block] = call, _hidden(output)
            if block is blocks[-1]:
                raise _Reached

        with ExitStack() as hooks, suppress(_Reached):
            for block in blocks:
                hooks.callback(block.register_forward_hook(note, with_kwargs=True).remove)
            self.setup.mean_loss(batch)
        return calls

    def _run(self, block: nn.Module, calls: list[Call]) -> list[Any]:
        with self.setup.machine.precision():
            return [_hidden(block(*call.args, **call.kwargs)) for call in calls]


def _hidden(output: Any) -> Any:
    """What a block hands on; some hand attention weights along."""
    return output[0] if isinstance(output, tuple) else output


class _Reached(Exception): ...  # noqa: N818 - no error: the way out of a forward pass


@dataclass(frozen=True)
class ChooseOfLayer:
    """A ``Choose``: exactly ``count`` of a layer's weights are cut, each column having its share of
    them. ``kept``: the mask of earlier rounds, whose cuts go first.
    """

    weight: Tensor
    count: int
    pattern: Pattern
    within: Within
    kept: Tensor

    @property
    def group(self) -> int | None:
        return self.pattern.group

    def __call__(self, scores: Tensor, first: int) -> Tensor:
        last = first + scores.shape[1]
        if not scores.isfinite().all():
            raise PruningError("The scores of a layer are not finite.")
        # An update may have given life to what was cut: it goes again, before all else.
        scores = scores.masked_fill(~self.kept[:, first:last], -math.inf)
        ranking = Ranking({"layer": scores}, {"layer": self.weight[:, first:last]})
        counts = {"layer": self._upto[last] - self._upto[first]}
        return self.pattern.masks(ranking, counts, self.within)["layer"].to(scores.device)

    @cached_property
    def _upto(self) -> list[int]:
        """How many of the columns before each one, and of all, are cut: what went before, and an
        even share of the rest. Row by row a multiple of the rows: they stay at most one apart.
        """
        rows, columns = self.weight.shape
        lost = (~self.kept).sum(0)
        gone = (lost.cumsum(0) - lost).tolist()
        unit = rows if self.within == "row" else 1
        rest = (self.count - int(lost.sum())) // unit
        shares = [(2 * rest * column + columns) // (2 * columns) for column in range(columns)]
        upto = [before + unit * share for before, share in zip(gone, shares, strict=True)]
        return [*upto, self.count]


@contextmanager
def watching(
    model: Model, layers: Mapping[str, nn.Module], gram: bool
) -> Iterator[Mapping[str, LayerInputs]]:
    """Sum up what matrices of layers, by name, are fed meanwhile, in float32."""
    fed: dict[str, LayerInputs] = defaultdict(lambda: LayerInputs(torch.zeros(())))

    def add(name: str, layer: nn.Module, given: tuple[Any, ...]) -> None:
        for key, rows in model.fed(name, layer, given).items():
            x, sums = rows.flatten(0, -2).float(), fed[key]
            sums.square_sum = sums.square_sum + x.square().sum(0)
            sums.sum = x.sum(0) if sums.sum is None else sums.sum + x.sum(0)
            sums.tokens += len(x)
            if gram:
                sums.gram = x.T @ x if sums.gram is None else sums.gram.addmm_(x.T, x)

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_pre_hook(partial(add, name)).remove)
        yield fed


def _rows_of(batch: Batch, rows: Tensor, length: int) -> Batch:
    part = {key: batch[key][rows, :length] for key in ("tokens", "targets")}
    if "images" in batch:
        used, image = torch.unique(batch["image"][rows], return_inverse=True)
        part |= {"images": batch["images"][used], "image": image}
    return part
