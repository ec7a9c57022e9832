"""Linear layers of a model: which there are, what they are fed, which of their weights stay."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from swe_cli.contracts import LayerInputs, Model, Pattern, Within
from swe_cli.errors import PruningError
from swe_cli.masks.rank import Ranking
from swe_cli.training.loop import as_module


@dataclass(frozen=True)
class ChooseOfLayer:
    """Exactly ``count`` of a layer's weights are cut, each column having its share of them."""

    weight: Tensor
    count: int
    pattern: Pattern
    within: Within
    kept: Tensor | None = None  # by earlier rounds

    @property
    def group(self) -> int | None:
        return self.pattern.group

    def __call__(self, scores: Tensor, first: int) -> Tensor:
        last = first + scores.shape[1]
        count = self._upto(last) - self._upto(first)
        if not scores.isfinite().all():
            raise PruningError("The scores of a layer are not finite.")
        magnitudes = self.weight[:, first:last]
        if self.kept is not None:
            # An update may have given life to what was cut: it goes again, before all else.
            before = self.kept[:, first:last]
            scores = scores.masked_fill(~before, -math.inf)
        ranked = Ranking({"layer": scores}, {"layer": magnitudes})
        kept = self.pattern.masks(ranked, {"layer": count}, self.within)["layer"]
        return kept.to(scores.device)

    def _upto(self, column: int) -> int:
        """How many of the columns before this one are cut in all: what went before, and an even
        share of the rest. Row by row a multiple of the rows, so that they stay at most one apart.
        """
        rows, columns = self.weight.shape
        if column == columns:
            return self.count
        gone = 0 if self.kept is None else int((~self.kept[:, :column]).sum())
        rest = self.count - (0 if self.kept is None else int((~self.kept).sum()))
        unit = rows if self.within == "row" else 1
        return gone + unit * ((2 * (rest // unit) * column + columns) // (2 * columns))


def linear_layers(model: Model) -> list[list[tuple[str, nn.Linear]]]:
    """Of every block its linear layers, by their names in the model."""
    names = {module: name for name, module in as_module(model).named_modules()}
    return [
        [(names[m], m) for m in block.modules() if isinstance(m, nn.Linear)]
        for block in model.blocks()
    ]


@contextmanager
def watching(layers: list[tuple[str, nn.Linear]], gram: bool) -> Iterator[dict[str, LayerInputs]]:
    """Sum up what linear layers are fed meanwhile, in float32."""
    fed: dict[str, LayerInputs] = {}
    hooks = []
    for name, layer in layers:
        zeros = layer.weight.new_zeros(layer.in_features, dtype=torch.float32)
        square = zeros.new_zeros(len(zeros), len(zeros)) if gram else None
        fed[name] = LayerInputs(zeros, square)

        def add(_: nn.Module, arguments: tuple[Tensor], into: LayerInputs = fed[name]) -> None:
            x = arguments[0].flatten(0, -2).float()
            if into.gram is None:
                into.square_sum += x.square().sum(0)
            else:
                into.gram.addmm_(x.T, x)
                into.square_sum.copy_(into.gram.diagonal())

        hooks.append(layer.register_forward_pre_hook(add))
    try:
        yield fed
    finally:
        for hook in hooks:
            hook.remove()
