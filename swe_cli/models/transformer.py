"""What every tower here is made of: pre-LN blocks of attention and MLP, dense, factorised or gated.

Shapes: B rows, T positions, C width, H heads, D = C / H, N hidden neurons, R rank, S cache slots.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swe_cli.contracts import Model, PrunableSet, UnitKind, Units
from swe_cli.records import Tensors

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}
MATRICES = ("qkv.weight", "projection.weight", "expand.weight", "contract.weight")
FACTORS = ("left", "right", "core")
MLP_PARAMETERS = ("expand.weight", "expand.bias", "contract.weight", "contract.bias")


class Transformer(Model):
    """A model of the blocks below: which of their tensors can be pruned, which units taken out."""

    def prunable(self, tensors: Mapping[str, Tensor], which: PrunableSet) -> Tensors:
        """Views of the prunable part of ``tensors``, role by role; see ``contracts.Model``.

        ``linear``: the matrices of attention and MLP. ``all``: every parameter. Where heads are
        split, query, key and value of each are tensors of their own. Factors are not picked: where
        an MLP is factorised, the matrices are that they stand for.
        """
        names: list[str] = []
        head_widths: dict[str, int] = {}
        for prefix, module in self.named_modules():
            if isinstance(module, Attention) and module.split_heads:
                head_widths[f"{prefix}.qkv"] = module.head_width
            if isinstance(module, FactorizedMLP):
                names += [f"{prefix}.{of}" for of in MLP_PARAMETERS]
            else:
                names += [name for name, _ in module.named_parameters(prefix, recurse=False)]
        chosen: Tensors = {}
        for name in sorted(names, key=self._place):
            if name not in tensors or (which == "linear" and not name.endswith(MATRICES)):
                continue
            if (head_width := head_widths.get(name.rpartition(".")[0])) is None:
                chosen[name] = tensors[name]
                continue
            parts = torch.split(tensors[name], head_width)  # rows: H queries, H keys, H values
            heads = range(len(parts) // 3)
            labels = [f"{kind}.{head}" for kind in ("query", "key", "value") for head in heads]
            chosen |= {f"{name}[{at}]": part for at, part in zip(labels, parts, strict=True)}
        return chosen

    def units(self, kind: UnitKind) -> list[Units]:
        owner: Any = {"block": Block, "neuron": MLP, "head": Attention}[kind]
        named = [(n, m) for n, m in self.named_modules() if isinstance(m, owner)]
        left = (of for of in named if kind == "neuron" or next(of[1].parameters()).numel())
        units = [m.units(name) for name, m in left if not isinstance(m, GatedMLP)]
        return sorted(units, key=lambda of: self._place(of.layer))

    def _place(self, name: str) -> int:
        """Where in ``roles`` that of a parameter, or a module, stands."""
        return self.roles.index(self.role_of(name))


class Block(nn.Module):
    """Attention and MLP, each on a normalised copy of the residual stream."""

    def __init__(
        self, width: int, heads: int, dropout: float, activation: str, *, bias: bool, **options: Any
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, bias=bias)
        self.attention = Attention(width, heads, dropout, bias=bias, **options)
        self.mlp_norm = nn.LayerNorm(width, bias=bias)
        self.mlp = MLP(width, dropout, activation, bias=bias)

    def forward(self, x: Tensor, cache: "Cache | None" = None) -> Tensor:
        if not self.attention.qkv.weight.numel():  # taken out: all of its parameters are empty
            return x
        x = x + self.attention(self.attention_norm(x), cache)
        x = x + self.mlp(self.mlp_norm(x))
        return x

    def units(self, prefix: str) -> Units:
        """Itself, one of its tower's, by parameter names that begin with ``prefix``."""
        tower, _, place = prefix.rpartition(".")
        owned = {n: (0, torch.arange(len(p))[None]) for n, p in self.named_parameters(prefix)}
        outputs = [f"{prefix}.attention.projection", f"{prefix}.mlp.contract"]

        def adds(weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
            out = torch.cat([weights[f"{of}.weight"] for of in outputs], dim=1)
            biases = (weights[f"{of}.bias"] for of in outputs if f"{of}.bias" in weights)
            return ~out.any()[None], sum(biases, start=out.new_zeros(1, len(out)))

        before = f"{tower}.{int(place) - 1}.mlp.contract.bias"
        first = f"{tower.removesuffix('layers')}position_embedding.weight"
        return Units(tower, owned, None, adds, before if int(place) else first)


class Attention(nn.Module):
    """Self-attention; query, key and value are one matrix, head by head in each third.

    ``scale``: of the scores; by default 1 / √D. ``split_heads``: see ``Transformer.prunable``.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float,
        *,
        causal: bool,
        bias: bool,
        scale: float | None = None,
        qkv_bias: bool = True,
        split_heads: bool = False,
    ) -> None:
        super().__init__()
        self.head_width, self.causal, self.split_heads = width // heads, causal, split_heads
        self.scale = scale or self.head_width**-0.5
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.projection = nn.Linear(width, width, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: "Cache | None" = None) -> Tensor:
        b, t, _ = x.shape
        split = self.qkv(x).view(b, t, 3, -1, self.head_width)  # fewer heads, where some are cut
        q, k, v = split.permute(2, 0, 3, 1, 4)  # (B, H, T, D)
        causal, mask, dropout = self.causal, None, self.dropout.p if self.training else 0.0
        if cache is not None:
            (k, v), causal, mask = cache.extend(self, k, v), False, cache.mask
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, dropout_p=dropout, scale=self.scale
        )
        projected: Tensor = self.dropout(self.projection(y.transpose(1, 2).reshape(b, t, -1)))
        return projected

    def units(self, prefix: str) -> Units:
        """Its heads, by parameter names that begin with ``prefix``."""
        rows = torch.arange(self.qkv.out_features).view(3, -1, self.head_width)
        columns = rows[0]  # (H, D): in query, key and value heads lie in the same order
        mine = rows.transpose(0, 1).flatten(1)  # (H, 3 D)
        owned = {f"{prefix}.qkv.weight": (0, mine), f"{prefix}.projection.weight": (1, columns)}
        if self.qkv.bias is not None:
            owned[f"{prefix}.qkv.bias"] = (0, mine)

        def adds(weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
            out = weights[f"{prefix}.projection.weight"][:, columns]  # (C, H, D)
            values = weights[f"{prefix}.qkv.weight"][rows[2]]  # (H, D, C)
            blind = (values == 0).flatten(1).all(1)
            silent = (out == 0).all(0).all(1)
            # Attention is a mean: of values that are all the bias it is the bias.
            bias = weights.get(f"{prefix}.qkv.bias", out.new_zeros(self.qkv.out_features))
            return blind | silent, torch.einsum("chd,hd->hc", out, bias[rows[2]])

        output = f"{prefix}.projection"
        return Units(prefix, owned, f"{output}.weight", adds, f"{output}.bias")


class MLP(nn.Module):
    """Two matrices around an activation: C → ``hidden`` → ``out``, by default C → 4C → C."""

    def __init__(
        self, width: int, dropout: float, activation: str, bias: bool, hidden: int = 0, out: int = 0
    ) -> None:
        super().__init__()
        self.expand = nn.Linear(width, hidden or 4 * width, bias=bias)
        self.contract = nn.Linear(hidden or 4 * width, out or width, bias=bias)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = ACTIVATIONS[self.activation](self.expand(x))
        projected: Tensor = self.dropout(self.contract(hidden))
        return projected

    def units(self, prefix: str) -> Units:
        """Its hidden neurons, by parameter names that begin with ``prefix``."""
        each = torch.arange(self.expand.out_features)[:, None]
        owned = {f"{prefix}.expand.weight": (0, each), f"{prefix}.contract.weight": (1, each)}
        if self.expand.bias is not None:
            owned[f"{prefix}.expand.bias"] = (0, each)

        def adds(weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
            read, out = weights[f"{prefix}.expand.weight"], weights[f"{prefix}.contract.weight"]
            bias = weights.get(f"{prefix}.expand.bias", read.new_zeros(len(read)))
            constant = (read == 0).all(1) | (out == 0).all(0)
            return constant, (out * ACTIVATIONS[self.activation](bias)).T

        return Units(prefix, owned, f"{prefix}.contract.weight", adds, f"{prefix}.contract.bias")


class FactorizedMLP(nn.Module):
    """``MLP`` with ``expand.weight``ᵀ ≈ left · K_0 · rightᵀ and ``contract.weight`` ≈ left · K_1 ·
    rightᵀ, K_s = diag(core[s]) (CP) or core[s] (Tucker, whose two ranks may differ).

    ``left`` (C, R), ``right`` (N, R); ``core`` (2, R) of diagonals, or (2, R, R) of matrices. MLPs
    that were stacked share ``left`` and ``right``. The order of its products is from the input on,
    so that no dense matrix is ever made. What its biases hold at first is undefined.
    """

    def __init__(
        self, factors: Sequence[nn.Parameter], *, dropout: float, activation: str, bias: bool
    ) -> None:
        super().__init__()
        self.left, self.right, self.core = factors
        self.expand_bias = nn.Parameter(self.right.new_empty(len(self.right))) if bias else None
        self.contract_bias = nn.Parameter(self.left.new_empty(len(self.left))) if bias else None
        self.activation = activation
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        diagonal = self.core.dim() == 2
        expand, contract = self.core
        read = x @ self.left
        read = read * expand if diagonal else read @ expand
        hidden = ACTIVATIONS[self.activation](F.linear(read, self.right, self.expand_bias))
        written = hidden @ self.right
        written = written * contract if diagonal else written @ contract.T
        projected: Tensor = self.dropout(F.linear(written, self.left, self.contract_bias))
        return projected

    @torch.no_grad()
    def matrices(self) -> tuple[Tensor, Tensor]:
        """The ``expand.weight`` (N, C) and ``contract.weight`` (C, N) that it stands for."""
        cores = self.core.diag_embed() if self.core.dim() == 2 else self.core
        expand, contract = self.left @ cores @ self.right.T
        return expand.T, contract


class GatedMLP(MLP):
    """``MLP`` cut along its neurons into n equal blocks o_i: ``Σ_i S_i · o_i``, S a token's gates;
    by a ``published`` router n / max(1, #active) times that (DSMoE, arXiv 2502.12455). The bias of
    ``contract`` is of no block.
    """

    def __init__(self, kind: str, blocks: int, width: int, **options: Any) -> None:
        super().__init__(width, **options)
        router = nn.Linear(width, blocks, bias=kind == "predicted")
        self.kind, self.blocks, self.router = kind, blocks, nn.ModuleDict({kind: router})

    def gates(self, x: Tensor) -> Tensor:
        """S (…, n), with the gradient of g = σ(xY), which for ``predicted`` has a bias in it."""
        gates = torch.sigmoid(self.router[self.kind](x))
        on = (gates > 0.5).to(gates)
        value = {"published": on * gates, "predicted": on, "soft": gates}[self.kind].detach()
        return value + (gates - gates.detach())  # of which the last is 0: exactly 1 stays 1

    def contributions(self, x: Tensor) -> Tensor:
        """‖o_i‖ before any gate: (T, C) → (T, n)."""
        hidden = ACTIVATIONS[self.activation](self.expand(x)).view(len(x), self.blocks, -1)
        writes = self.contract.weight.T.reshape(self.blocks, -1, self.contract.out_features)
        norms: Tensor = torch.linalg.vector_norm(hidden.transpose(0, 1) @ writes, dim=-1)
        return norms.T

    def forward(self, x: Tensor) -> Tensor:
        self.fed, gates = x, self.gates(x)  # for those that ask what was given last
        if self.kind == "published":
            gates = gates * (self.blocks / (gates > 0).to(gates).sum(-1, keepdim=True).clamp(min=1))
        gates = gates.repeat_interleave(self.expand.out_features // self.blocks, -1)
        hidden = ACTIVATIONS[self.activation](self.expand(x)) * gates
        projected: Tensor = self.dropout(self.contract(hidden))
        return projected


class Cache:
    """Keys and values of the positions seen so far, a slot a position, for decoding in batches.

    Rows may have prompts of different lengths: each writes at positions of its own and sees the
    slots up to them. What lies in a later slot is overwritten before it is ever seen.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._stored: dict[Attention, Tensor] = {}

    def at(self, positions: Tensor) -> "Cache":
        """What is computed next stands at ``positions``, int64 (B, T)."""
        self._positions = positions
        self._rows = torch.arange(len(positions), device=positions.device)[:, None]
        slots = torch.arange(self.slots, device=positions.device)
        self.mask = slots <= positions[:, None, :, None]  # (B, 1, T, S)
        return self

    def extend(self, owner: Attention, k: Tensor, v: Tensor) -> Tensor:
        """Store keys and values (B, H, T, D) of one layer; all of its slots, (2, B, H, S, D)."""
        if owner not in self._stored:
            b, heads, _, d = k.shape
            self._stored[owner] = k.new_zeros(2, b, self.slots, heads, d)
        stored = self._stored[owner]
        stored[:, self._rows, self._positions] = torch.stack((k, v)).transpose(2, 3)
        return stored.transpose(2, 3)


def match_mlps(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Make the MLPs of ``module`` factorised, gated or dense, as the names of ``weights`` say.

    An MLP with a ``router`` is gated, one with a ``core`` is factorised; where it has no ``left``
    and ``right``, they are those of the last one before it that does: one parameter, under the name
    of its first owner. What new parameters hold is undefined. Names that fit no MLP change nothing.
    """
    factors: dict[str, nn.Parameter] = {}
    for name, layer in list(module.named_modules()):
        if not isinstance(layer, MLP | FactorizedMLP):
            continue
        like = next(layer.parameters())
        for of in FACTORS:
            if (given := weights.get(f"{name}.{of}")) is not None:
                factors[of] = nn.Parameter(like.new_empty(given.shape))
        options: dict[str, Any] = {"dropout": layer.dropout.p, "activation": layer.activation}
        biases = ("expand.bias", "expand_bias")
        options["bias"] = any(of in biases for of, _ in layer.named_parameters())
        router = f"{name}.router."
        kind = next((of.split(".")[-2] for of in weights if of.startswith(router)), None)
        stays = kind is None and not isinstance(layer, FactorizedMLP | GatedMLP)
        new: MLP | FactorizedMLP
        if f"{name}.core" in weights and len(factors) == len(FACTORS):
            new = FactorizedMLP([factors[of] for of in FACTORS], **options)
        elif f"{name}.expand.weight" in weights and not stays:
            width = weights[f"{name}.expand.weight"].shape[1]
            blocks = len(weights[f"{router}{kind}.weight"]) if kind else 1
            with torch.device("meta"):  # there, no initial weights are drawn
                new = GatedMLP(kind, blocks, width, **options) if kind else MLP(width, **options)
            new = new.to_empty(device=like.device).to(like.dtype)
        else:
            continue
        parent, _, child = name.rpartition(".")
        new.requires_grad_(like.requires_grad).train(layer.training)
        setattr(module.get_submodule(parent), child, new)


def initialize_as_gpt2(tower: nn.Module, layers: int) -> None:
    """Normal 0.02, residual projections scaled down by depth, biases zero (Radford et al. 2019)."""
    for name, parameter in tower.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif name.endswith(("projection.weight", "contract.weight")):
            nn.init.normal_(parameter, std=0.02 * (2 * layers) ** -0.5)
        elif "norm" not in name:
            nn.init.normal_(parameter, std=0.02)
