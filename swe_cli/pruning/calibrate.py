"""What a calibration set tells of a model: gradients, the inputs of its layers, its steepness."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from swe_cli.contracts import (
    GRADIENTS,
    IGNORED,
    Batch,
    Counts,
    Dataset,
    LayerInputs,
    LayerwiseCriterion,
    Lens,
    Masks,
    Model,
    Pattern,
    Scores,
    Tensors,
    Within,
)
from swe_cli.errors import PruningError, UsageError
from swe_cli.evaluation.loss import evaluating
from swe_cli.machine import Machine
from swe_cli.pruning.layers import ChooseOfLayer, linear_layers, watching
from swe_cli.seeds import derive
from swe_cli.training.loop import as_module

PROBE_SAMPLES = 32  # of the calibration set, for zeroth-order sensitivities
PROBE_STEP = 1e-3  # ε


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Seeded samples of the *training* split. ``inputs``: whether a layer is judged by what the
    pruned blocks before it give, or by what the dense ones would.
    """

    samples: int
    batch_size: int
    inputs: Literal["pruned", "dense"]

    def __post_init__(self) -> None:
        if self.samples < 2 or self.batch_size < 1:
            raise UsageError(
                "calibration.samples must be at least 2 and calibration.batch_size at least 1.",
                "For example: calibration.samples=128",
            )

    def batches(
        self, dataset: Dataset, context: int, seed: int, size: int, most: int | None = None
    ) -> list[Batch]:
        """At most ``size`` rows each, all of one length: nothing that only fills up enters.

        With ``most`` only the first so many samples, as they were drawn: of all lengths.
        """
        drawn = dataset.random_batch(
            "train", size=self.samples, context=context, seed=derive(seed, "calibration")
        )
        places = torch.arange(1, drawn["targets"].shape[1] + 1)
        lengths = ((drawn["targets"] != IGNORED) * places).amax(1)[:most]
        return [
            _rows_of(drawn, rows, int(length))
            for length in torch.unique(lengths)
            for rows in (lengths == length).nonzero()[:, 0].split(size)
        ]


@dataclass
class Calibrated:
    """A model and its calibration set; everything is computed once, when it is first asked for.

    The live model must hold the weights that are judged whenever something is asked.
    """

    model: Model
    dataset: Dataset
    machine: Machine
    calibration: Calibration
    lens: Lens
    seed: int
    _scores: dict[str, Scores] = field(default_factory=dict)

    @cached_property
    def gradients(self) -> dict[str, Tensors]:
        """``GRADIENTS`` of every prunable weight, over single samples, in one pass."""
        module = as_module(self.model)
        parameters = dict(module.named_parameters())
        found = {of: {n: torch.zeros_like(p) for n, p in parameters.items()} for of in GRADIENTS}
        single = self._batches(1)
        with evaluating(self.model), _all_trainable(module):
            for batch in single:
                self._loss(batch).backward()  # type: ignore[no-untyped-call]
                for name, weight in parameters.items():
                    gradient, weight.grad = weight.grad, None
                    if gradient is None:
                        continue
                    part = 1 / len(single)
                    found["mean_gradient"][name].add_(gradient, alpha=part)
                    found["mean_square_gradient"][name].addcmul_(gradient, gradient, value=part)
                    gradient.mul_(weight.detach()).abs_()
                    found["mean_saliency"][name].add_(gradient, alpha=part)
        with torch.no_grad():  # on the CPU, where all evidence lies
            return {
                of: self.lens({name: tensor.cpu() for name, tensor in tensors.items()})
                for of, tensors in found.items()
            }

    @torch.no_grad()
    def dense_scores(self, key: str, criterion: LayerwiseCriterion) -> Scores:
        """What the criterion gives every prunable weight on what dense layers are fed."""
        if key not in self._scores:
            views, scores = self._views(), Scores()

            def visit(names: list[str], inputs: LayerInputs) -> None:
                for name in names:
                    scores[name] = criterion.score_layer(views[name], inputs)

            self._walk(visit, gram="input_gram" in criterion.needs, pruned=False)
            self._scores[key] = {name: scores[name] for name in views}
        return self._scores[key]

    @torch.no_grad()
    def prune(
        self,
        criterion: LayerwiseCriterion,
        counts: Counts,
        pattern: Pattern,
        within: Within,
        kept: Masks | None = None,
    ) -> Masks:
        """Prune the live model block by block, exactly ``counts``; weights may be updated.

        What the masks ``kept`` of earlier rounds have cut goes first, and is among the counts.
        """
        views, masks = self._views(), Masks()

        def visit(names: list[str], inputs: LayerInputs) -> None:
            for name in names:
                before = kept[name].to(views[name].device) if kept else None
                choose = ChooseOfLayer(views[name], counts[name], pattern, within, before)
                masks[name] = criterion.prune_layer(views[name], inputs, choose).cpu()

        gram = "input_gram" in criterion.needs
        if self.calibration.inputs == "pruned":
            self._walk(visit, gram=gram, pruned=True)
        else:
            known: list[tuple[list[str], LayerInputs]] = []
            self._walk(lambda names, inputs: known.append((names, inputs)), gram=gram, pruned=False)
            for names, inputs in known:
                visit(names, inputs)
        return {name: masks[name] for name in views}

    @cached_property
    def sensitivities(self) -> dict[str, float]:
        """Σ over batches of |L(θ + εz) − L(θ − εz)| / 2ε per prunable tensor θ, z ~ N(0, I).

        Zeroth order, as ECoFLaP measures them (arXiv 2310.02998); θ is restored from a copy.
        """
        felt: dict[str, float] = {}
        batches = self._batches(self.calibration.batch_size, most=PROBE_SAMPLES)
        with torch.no_grad(), evaluating(self.model):
            for name, weight in self._views().items():
                saved, total = weight.clone(), 0.0
                for place, batch in enumerate(batches):
                    seed = derive(self.seed, f"probe/{name}", place)
                    generator = torch.Generator().manual_seed(seed)
                    step = torch.randn(weight.shape, generator=generator).to(weight) * PROBE_STEP
                    losses = []
                    for moved in (saved + step, saved - step):
                        weight.copy_(moved)
                        losses.append(float(self._loss(batch)))
                    weight.copy_(saved)
                    total += abs(losses[0] - losses[1]) / (2 * PROBE_STEP)
                felt[name] = total
        return felt

    def _views(self) -> Tensors:
        live = {name: p.detach() for name, p in as_module(self.model).named_parameters()}
        return self.lens(live)

    def _batches(self, size: int, most: int | None = None) -> list[Batch]:
        context = self.model.context
        batches = self.calibration.batches(self.dataset, context, self.seed, size, most)
        return [self.machine.move(batch) for batch in batches]

    def _loss(self, batch: Batch) -> Tensor:
        with self.machine.precision():
            losses = self.model(batch).losses
        return losses.sum() / (batch["targets"] != IGNORED).sum()

    def _walk(
        self, visit: Callable[[list[str], LayerInputs], None], *, gram: bool, pruned: bool
    ) -> None:
        """Visit the linear layers of every block, first to last, with what they are fed.

        ``visit`` is told the prunable names that lie in a layer's matrix. With ``pruned`` a block
        is run again after its visits, so that the next one sees what the pruned one gives. Only
        the inputs of one block are held at a time.
        """
        inside: dict[str, list[str]] = {}
        for name in self._views():
            inside.setdefault(name.partition("[")[0], []).append(name)
        layers = linear_layers(self.model)
        lost = inside.keys() - {f"{name}.weight" for block in layers for name, _ in block}
        if lost:
            raise PruningError(
                f"Wanda and SparseGPT judge layers by their inputs; they cannot score {min(lost)}.",
                "They, and allocation=owl, know the matrices of blocks: prunable=linear",
            )
        batches = self._batches(self.calibration.batch_size)
        blocks = list(self.model.blocks())
        with evaluating(self.model):
            follows = self._follows(blocks, batches[0])
            states: list[tuple[Any, ...]] = []
            for place, block in enumerate(blocks):
                wanted = [(n, m) for n, m in layers[place] if f"{n}.weight" in inside]
                if not follows[place]:
                    states = [self._fed(block, batch) for batch in batches]
                with watching(wanted, gram) as fed:
                    outputs = self._run(block, states)
                for name, _ in wanted:
                    visit(inside[f"{name}.weight"], fed[name])
                if pruned and wanted:
                    outputs = self._run(block, states)
                states = outputs

    def _follows(self, blocks: Sequence[nn.Module], batch: Batch) -> list[bool]:
        """Whether a block is fed just what the one before it gave: then no pass starts anew."""
        given: list[Any] = [None] * len(blocks)
        taken: list[Any] = [None] * len(blocks)
        hooks = []
        for place, block in enumerate(blocks):

            def note(_: Any, arguments: Any, output: Any, place: int = place) -> None:
                taken[place], given[place] = arguments[0], output

            hooks.append(block.register_forward_hook(note))
        try:
            self._loss(batch)
        finally:
            for hook in hooks:
                hook.remove()
        return [False, *(fed is given[place] for place, fed in enumerate(taken[1:]))]

    def _fed(self, block: nn.Module, batch: Batch) -> tuple[Any, ...]:
        """The arguments of a block in the pass over ``batch``, which ends there."""

        def stop(_: Any, arguments: tuple[Any, ...]) -> None:
            raise _Reached(arguments)

        hook = block.register_forward_pre_hook(stop)
        try:
            self._loss(batch)
        except _Reached as reached:
            return reached.arguments
        finally:
            hook.remove()
        raise AssertionError("a block that no pass reaches")

    def _run(self, block: nn.Module, states: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        with self.machine.precision():
            return [(block(*arguments),) for arguments in states]


class _Reached(Exception):  # noqa: N818 - no error: the way out of a forward pass
    def __init__(self, arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.arguments = arguments


@contextmanager
def _all_trainable(module: nn.Module) -> Iterator[None]:
    """Gradients of what was frozen, too."""
    before = {parameter: parameter.requires_grad for parameter in module.parameters()}
    module.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, trains in before.items():
            parameter.requires_grad_(trains)


def _rows_of(batch: Batch, rows: Tensor, length: int) -> Batch:
    part = {key: batch[key][rows, :length] for key in ("tokens", "targets")}
    if "images" in batch:
        used, image = torch.unique(batch["image"][rows], return_inverse=True)
        part |= {"images": batch["images"][used], "image": image}
    return part
