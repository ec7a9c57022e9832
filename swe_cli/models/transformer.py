"""What every tower here is made of: pre-LN blocks of attention and MLP.

Shapes: B rows, T positions, C width, H heads, D = C / H, S slots of a cache.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swe_cli.contracts import PrunableSet, UnitKind, Units
from swe_cli.records import Tensors

MATRICES = ("qkv.weight", "projection.weight", "expand.weight", "contract.weight")
# The parameters of an MLP; and, where it is factorised, those that stand in their place.
DENSE = ("expand.weight", "expand.bias", "contract.weight", "contract.bias")
FACTORS = (".left", ".right", ".core", ".expand_bias", ".contract_bias")


class Block(nn.Module):
    """Attention and MLP, each on a normalised copy of the residual stream."""

    def __init__(self, width: int, attention: "Attention", mlp: "MLP", *, bias: bool) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width, bias=bias), attention
        self.mlp_norm, self.mlp = nn.LayerNorm(width, bias=bias), mlp

    def forward(self, x: Tensor, cache: "Cache | None" = None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), cache)
        x = x + self.mlp(self.mlp_norm(x))
        return x


class Attention(nn.Module):
    """Self-attention; query, key and value are one matrix, head by head in each third."""

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float,
        scale: float,
        *,
        bias: bool,
        qkv_bias: bool,
        causal: bool,
    ) -> None:
        super().__init__()
        self.head_width, self.scale, self.causal = width // heads, scale, causal
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.projection = nn.Linear(width, width, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: "Cache | None" = None) -> Tensor:
        b, t, _ = x.shape
        split = self.qkv(x).view(b, t, 3, -1, self.head_width)  # fewer heads, where some are cut
        q, k, v = split.permute(2, 0, 3, 1, 4)  # (B, H, T, D)
        mask = None
        if cache is not None:
            k, v, mask = *cache.extend(self, k, v), cache.mask
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            is_causal=self.causal and mask is None,
            dropout_p=self.dropout.p if self.training else 0.0,
            scale=self.scale,
        )
        projected: Tensor = self.dropout(self.projection(y.transpose(1, 2).reshape(b, t, -1)))
        return projected

    def heads(self, prefix: str) -> Units:
        """Its heads, by parameter names that begin with ``prefix``."""
        rows = torch.arange(self.qkv.out_features).view(3, -1, self.head_width)
        columns = rows[0]  # (H, D): in query, key and value heads lie in the same order
        mine = rows.transpose(0, 1).flatten(1)  # (H, 3 D)
        owned = {f"{prefix}.qkv.weight": (0, mine), f"{prefix}.projection.weight": (1, columns)}
        biased = self.qkv.bias is not None
        if biased:
            owned[f"{prefix}.qkv.bias"] = (0, mine)

        def adds(weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
            out = weights[f"{prefix}.projection.weight"][:, columns]  # (C, H, D)
            blind = (weights[f"{prefix}.qkv.weight"][rows[2]] == 0).flatten(1).all(1)
            # Attention is a mean: of values that are all the bias it is the bias.
            value = (
                weights[f"{prefix}.qkv.bias"][rows[2]] if biased else out.new_zeros(rows[2].shape)
            )
            silent = (out == 0).all(0).all(1)
            return blind | silent, torch.einsum("chd,hd->hc", out, value)

        bias = f"{prefix}.projection.bias" if self.projection.bias is not None else None
        return Units(prefix, owned, adds, bias)


class MLP(nn.Module):
    """Two matrices around an activation; the hidden layer is four times the width."""

    def __init__(self, width: int, dropout: float, activation: str, *, bias: bool) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 4 * width, bias=bias)
        self.contract = nn.Linear(4 * width, width, bias=bias)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = activation_of(self.activation)(self.expand(x))
        projected: Tensor = self.dropout(self.contract(hidden))
        return projected

    def neurons(self, prefix: str) -> Units:
        """Its hidden neurons, by parameter names that begin with ``prefix``."""
        return neurons_of(self, prefix, activation_of(self.activation))


def activation_of(name: str) -> Callable[[Tensor], Tensor]:
    """What ``activation`` names: relu or gelu."""
    return F.relu if name == "relu" else F.gelu


class Cache:
    """Keys and values of the positions seen so far, a slot a position, for decoding in batches.

    Rows may have prompts of different lengths: each writes at positions of its own and sees the
    slots up to them. What lies in a later slot is overwritten before it is ever seen.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.mask: Tensor | None = None
        self._stored: dict[Attention, tuple[Tensor, Tensor]] = {}

    def at(self, positions: Tensor) -> "Cache":
        """What is computed next stands at ``positions``, int64 (B, T)."""
        self._positions = positions
        self._rows = torch.arange(len(positions), device=positions.device)[:, None]
        slots = torch.arange(self.slots, device=positions.device)
        self.mask = slots <= positions[:, None, :, None]  # (B, 1, T, S)
        return self

    def extend(self, owner: Attention, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values (B, H, T, D) of one layer; all of its slots, (B, H, S, D)."""
        b, heads, _, d = k.shape
        if owner not in self._stored:
            self._stored[owner] = (
                k.new_zeros(b, self.slots, heads, d),
                v.new_zeros(b, self.slots, heads, d),
            )
        keys, values = self._stored[owner]
        keys[self._rows, self._positions] = k.transpose(1, 2)
        values[self._rows, self._positions] = v.transpose(1, 2)
        return keys.transpose(1, 2), values.transpose(1, 2)


class TwoLayers(Protocol):
    """What expands, bends and contracts again."""

    expand: nn.Linear
    contract: nn.Linear


def neurons_of(layer: TwoLayers, prefix: str, activation: Callable[[Tensor], Tensor]) -> Units:
    """The hidden neurons between two matrices."""
    each = torch.arange(layer.expand.out_features)[:, None]
    owned = {f"{prefix}.expand.weight": (0, each), f"{prefix}.contract.weight": (1, each)}
    biased = layer.expand.bias is not None
    if biased:
        owned[f"{prefix}.expand.bias"] = (0, each)

    def adds(weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        read, out = weights[f"{prefix}.expand.weight"], weights[f"{prefix}.contract.weight"]
        bias = weights[f"{prefix}.expand.bias"] if biased else read.new_zeros(len(read))
        same = (read == 0).all(1) | (out == 0).all(0)
        return same, (out * activation(bias)).T

    return Units(
        prefix, owned, adds, f"{prefix}.contract.bias" if layer.contract.bias is not None else None
    )


def units_of(tower: nn.Module, kind: UnitKind, prefix: str = "") -> list[Units]:
    """The units of every block of a tower, whose parameter names begin with ``prefix``."""
    found = []
    for name, module in tower.named_modules():
        if kind == "head" and isinstance(module, Attention):
            found.append(module.heads(prefix + name))
        elif kind == "neuron" and isinstance(module, MLP):
            found.append(module.neurons(prefix + name))
    return found


def prunable_of(
    names: Iterable[str], tensors: Mapping[str, Tensor], which: PrunableSet, head_width: int = 0
) -> Tensors:
    """Views of the prunable part of one tower's ``tensors``; see ``contracts.Model``.

    ``linear``: the matrices of attention and MLP. ``all``: every parameter. With ``head_width``,
    query, key and value of each head are tensors of their own, of so many rows. Factors are not
    picked; where they are in ``names``, the matrices are that they stand for.
    """
    chosen: Tensors = {}
    for name in _dense_names(names):
        if name not in tensors or (which == "linear" and not name.endswith(MATRICES)):
            continue
        if head_width and name.endswith(("qkv.weight", "qkv.bias")):
            parts = torch.split(tensors[name], head_width)  # rows: H queries, H keys, H values
            heads = len(parts) // 3
            for index, part in enumerate(parts):
                kind = ("query", "key", "value")[index // heads]
                chosen[f"{name}[{kind}.{index % heads}]"] = part
        else:
            chosen[name] = tensors[name]
    return chosen


def _dense_names(names: Iterable[str]) -> Iterable[str]:
    """The names of the same tower while none of its MLPs is factorised, in the same order."""
    dense: dict[str, None] = {}
    for name in names:
        stem, _, _ = name.rpartition(".")
        factorised = name.endswith(FACTORS)
        dense |= dict.fromkeys([f"{stem}.{of}" for of in DENSE] if factorised else [name])
    return dense


def initialize_as_gpt2(tower: nn.Module, layers: int) -> None:
    """Normal 0.02, residual projections scaled down by depth, biases zero (Radford et al. 2019)."""
    for name, parameter in tower.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif name.endswith(("projection.weight", "contract.weight")):
            nn.init.normal_(parameter, std=0.02 * (2 * layers) ** -0.5)
        elif "norm" not in name:
            nn.init.normal_(parameter, std=0.02)
