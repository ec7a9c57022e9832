"""ssProp: a backward pass through the outputs of a layer that matter most, every other epoch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swe_cli.seeds import derive


class SparseLinear(torch.autograd.Function):
    """``Y = X Wᵀ + b`` (…, out), differentiated through the chosen outputs i of its gradient dY
    (N, out): dX = dY_i W_i, dW_i = dY_iᵀ X, db_i = Σ dY_i over its N rows; zero elsewhere.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, choose: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.choose = choose
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, of_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        rows = of_y.reshape(-1, len(weight))
        index = ctx.choose(rows).sort().values  # in order, a gather is much faster
        rows, inputs = rows.index_select(1, index), x.reshape(-1, x.shape[-1]).to(rows)
        whole = rows.new_zeros
        return (
            (rows @ weight[index].to(rows)).view_as(x) if of_x else None,
            whole(weight.shape).index_copy_(0, index, rows.T @ inputs) if of_weight else None,
            whole(len(weight)).index_copy_(0, index, rows.sum(0)) if of_bias else None,
            None,
        )


@dataclass(frozen=True)
class Backward:
    """The backward pass of a training: whole, but for ``layers`` in every second ``epoch`` (steps).

    There a layer's gradients come through max(1, ⌊keep · out⌋) of its outputs: those of the largest
    mean |dY| (Zhong et al., arXiv 2408.12561, which thins convolutions; linear layers are our
    reading), or as many drawn by ``seed``.
    """

    layers: Sequence[nn.Linear] = ()
    keep: float = 1.0
    epoch: int = 1
    seed: int | None = None

    def thins(self, step: int) -> bool:
        """Whether step ``step`` (1-based) lies in the second, fourth, … epoch."""
        return bool(self.layers) and (step - 1) // self.epoch % 2 == 1

    @contextmanager
    def __call__(self, step: int) -> Iterator[None]:
        """What is computed meanwhile is differentiated as step ``step`` is."""
        generator = torch.Generator().manual_seed(derive(self.seed or 0, "backward", step))

        def choose(of_y: Tensor) -> Tensor:
            count = max(1, int(self.keep * of_y.shape[1]))
            if self.seed is None:
                return of_y.abs().mean(0).topk(count).indices
            return torch.randperm(of_y.shape[1], generator=generator)[:count].to(of_y.device)

        apply: Any = SparseLinear.apply
        layers = self.layers if self.thins(step) else ()
        for layer in layers:
            thinned: Any = lambda x, of=layer: apply(x, of.weight, of.bias, choose)  # noqa: E731
            layer.forward = thinned  # type: ignore[method-assign]
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward
