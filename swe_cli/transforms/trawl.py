"""TRAWL: the matrices of an MLP, or of many, as one tensor of low rank."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from swe_cli.contracts import Candidate, Transform
from swe_cli.errors import PruningError, UsageError, optional
from swe_cli.records import Tensors
from swe_cli.seeds import derive

EXPAND, CONTRACT = ".expand.weight", ".contract.weight"
RIDGE = 1e-12  # on a tensor of norm 1: two components that grow alike do not stop the solver


@dataclass(frozen=True, kw_only=True)
class TRAWL(Transform):
    """``T ≈ Σ_{r≤R} a_r ∘ b_r ∘ c_r`` (CP) or ``T ≈ G ×₁ B ×₂ C`` (Tucker); Luo et al. 2024,
    arXiv 2406.17261.

    T stacks ``expand.weight``ᵀ and ``contract.weight``: (2, d, 4d) of one MLP, (2L, d, 4d) of L
    with ``stack=all``. Stored are the factors alone: B = ``left`` (d, R), C = ``right`` (4d, R),
    and of each MLP a ``core``, CP (2, R), Tucker (2, R, R). Tucker keeps the stacked mode whole, as
    published: its factor, being square, is part of the core. Above d, its left rank stays d.

    Of one MLP, CP stores R(2 + 5d) numbers for 8d²: memory is saved below R = 8d²/(5d + 2) ≈ 1.6d,
    and FLOPs of the forward pass, 2 · 10dR a token for 2 · 8d², below 0.8d. Tucker stores
    5dR + 2R², less below 7d/6, and takes fewer FLOPs, 2 · (10dR + 2R²), below 0.7d.

    ``layers`` counts the MLPs that may be cut, negative from the end; best reported are the last.
    Alternating least squares start from a seeded draw (CP) or from singular vectors (Tucker).
    """

    method: Literal["cp", "tucker"]
    stack: Literal["layer", "all"]
    layers: Literal["all"] | list[int]
    ranks: list[int]
    iterations: Annotated[int, Field(ge=1, description="Write transform.iterations=100")]

    def __post_init__(self) -> None:
        if not self.ranks or min(self.ranks) < 1 or not self.layers:
            why = "transform.ranks and transform.layers must not be empty, and ranks at least 1."
            raise UsageError(why, "Write transform.ranks=[16,32] transform.layers=[-1]")
        if self.stack == "all" and self.layers != "all" and len(self.layers) == 1:
            why = "transform.stack=all stacks several layers, and transform.layers names one."
            raise UsageError(why, "Write transform.layers=all, or transform.stack=layer")

    def candidates(self, prunable: Mapping[str, Tensor]) -> Sequence[Candidate]:
        """Every stack at every rank; see ``contracts.Transform``."""
        mlps = dense_mlps(prunable)
        count = len(mlps)
        layers = range(count) if self.layers == "all" else self.layers
        for layer in layers:
            if not -count <= layer < count:
                why = f"transform.layers: there is no layer {layer} among {count}."
                hint = f"Choose from {-count} to {count - 1}, or transform.layers=all"
                raise UsageError(why, hint)
        chosen = [mlps[index] for index in sorted({layer % count for layer in layers})]
        stacks = [tuple(chosen)] if self.stack == "all" else [(mlp,) for mlp in chosen]
        ranks = dict.fromkeys(self.ranks)
        return [self._candidate(prunable, stack, rank) for stack in stacks for rank in ranks]

    def _candidate(
        self, prunable: Mapping[str, Tensor], layers: tuple[str, ...], rank: int
    ) -> Candidate:
        alike = {(layer.rsplit(".", 2)[0], prunable[layer + EXPAND].shape) for layer in layers}
        if len(alike) > 1:
            hint = "Name the tower, as in roles=language, or write transform.stack=layer"
            raise UsageError("transform.stack=all stacks MLPs of one tower and of one size.", hint)
        hidden, width = prunable[layers[0] + EXPAND].shape
        slices = 2 * len(layers)
        most = slices * min(width, hidden) if self.method == "cp" else min(slices * width, hidden)
        if rank > most:
            why = f"transform.ranks: {rank} is more than MLPs of width {width} allow."
            raise UsageError(why, f"Choose ranks up to {most}.")
        left = rank if self.method == "cp" else min(rank, width)
        core = rank if self.method == "cp" else left * rank
        stored = width * left + hidden * rank + slices * core
        return Candidate(layers, rank, slices * width * hidden - stored)

    @torch.no_grad()
    def apply(self, weights: Tensors, candidate: Candidate, seed: int) -> Tensors:
        """The MLPs of ``candidate`` as factors: ``X.left``, ``X.right`` (of the first of a stack
        only, which the others share), ``X.core``, ``X.expand_bias`` and ``X.contract_bias``.

        Raises PruningError for weights that are not finite, or factorised already.
        """
        if any(name.endswith(".mlp.core") for name in weights):
            hint = "Transform those of a training run."
            raise PruningError("These weights are factorised already.", hint)
        layers, rank, first = candidate.layers, candidate.rank, candidate.layers[0]
        # T (2L, d, 4d), on the device of the weights; one of them, MPS, has no float64.
        slices = [t for n in layers for t in (weights[n + EXPAND].T, weights[n + CONTRACT])]
        stacked = torch.stack(slices)
        tensor = stacked.to(torch.float32 if stacked.device.type == "mps" else torch.float64)
        if not tensor.isfinite().all():
            why = f"The weights of {first} are not all finite numbers."
            raise PruningError(why, "Transform a model whose loss is: base=best, or train anew.")
        norm = tensor.norm()
        scale = norm.where(norm > 0, 1)
        own_seed = derive(seed, f"transform/{'+'.join(layers)}", rank)
        decompose = self._cp if self.method == "cp" else self._tucker
        left, right, core = decompose(tensor / scale, rank, own_seed)
        dtype = weights[first + EXPAND].dtype
        gone = tuple(f"{layer}." for layer in layers)
        new = {name: weight for name, weight in weights.items() if not name.startswith(gone)}
        new[f"{first}.left"], new[f"{first}.right"] = left.to(dtype), right.to(dtype)
        for index, layer in enumerate(layers):
            new[f"{layer}.core"] = (scale * core[2 * index : 2 * index + 2]).to(dtype)
            for bias in ("expand", "contract"):
                if f"{layer}.{bias}.bias" in weights:
                    new[f"{layer}.{bias}_bias"] = weights[f"{layer}.{bias}.bias"]
        return new

    def _cp(self, tensor: Tensor, rank: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Columns of B and C get norm 1; the core is A times what that takes from them."""
        generator, of = torch.Generator().manual_seed(seed), tensor.dtype
        drawn = [torch.randn(n, rank, generator=generator, dtype=of) for n in tensor.shape]
        start = [(factor / factor.norm(dim=0)).to(tensor.device) for factor in drawn]
        init = (tensor.new_ones(rank), start)
        with _pytorch() as solver:
            _, (core, *factors) = solver.parafac(
                tensor, rank, n_iter_max=self.iterations, init=init, l2_reg=RIDGE
            )
        norms = [factor.norm(dim=0) for factor in factors]
        left, right = (f / n.where(n > 0, 1) for f, n in zip(factors, norms, strict=True))
        return left, right, core * prod(norms)

    def _tucker(self, tensor: Tensor, rank: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        with _pytorch() as solver:
            # The seed is of columns that the data do not decide.
            how = {"n_iter_max": self.iterations, "random_state": seed % 2**32}
            ranks = min(rank, tensor.shape[1]), rank
            (core, (left, right)), _ = solver.partial_tucker(tensor, ranks, modes=[1, 2], **how)
        return left, right, core


def dense_mlps(prunable: Mapping[str, Tensor]) -> list[str]:
    """The names of those of blocks, in order. Raises PruningError where there are none."""
    mlps = [name.removesuffix(EXPAND) for name in prunable if name.endswith(f".mlp{EXPAND}")]
    if not mlps:
        why = "A transform finds no dense MLP among what may be cut."
        raise PruningError(why, "Widen it: roles=all")
    return mlps


@contextmanager
def _pytorch() -> Iterator[Any]:
    """tensorly's decompositions, on tensors of torch. UsageError where it is not installed."""
    tensorly = optional("tensorly", "A TRAWL transform", "trawl")
    with tensorly.backend_context("pytorch", local_threadsafe=True):
        yield tensorly.decomposition
