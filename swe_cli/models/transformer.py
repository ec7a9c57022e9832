"""What every tower here is made of: pre-LN blocks of attention and MLP.

Shapes: B rows, T positions, C width, H heads, D = C / H, S slots of a cache.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swe_cli.contracts import PrunableSet, Tensors

MATRICES = ("qkv.weight", "projection.weight", "expand.weight", "contract.weight")


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
        self.heads, self.scale, self.causal = heads, scale, causal
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.projection = nn.Linear(width, width, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: "Cache | None" = None) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, T, D)
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
        projected: Tensor = self.dropout(self.projection(y.transpose(1, 2).reshape(b, t, c)))
        return projected


class MLP(nn.Module):
    """Two matrices around an activation; the hidden layer is four times the width."""

    def __init__(self, width: int, dropout: float, activation: str, *, bias: bool) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 4 * width, bias=bias)
        self.contract = nn.Linear(4 * width, width, bias=bias)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.expand(x)) if self.activation == "relu" else F.gelu(self.expand(x))
        projected: Tensor = self.dropout(self.contract(hidden))
        return projected


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


def prunable_of(
    names: Iterable[str], tensors: Mapping[str, Tensor], which: PrunableSet, split_heads: int = 0
) -> Tensors:
    """Views of the prunable part of one tower's ``tensors``; see ``contracts.Model``.

    ``linear``: the matrices of attention and MLP. ``all``: every parameter. With ``split_heads``
    heads, query, key and value of each are tensors of their own.
    """
    chosen: Tensors = {}
    for name in names:
        if name not in tensors or (which == "linear" and not name.endswith(MATRICES)):
            continue
        if split_heads and name.endswith(("qkv.weight", "qkv.bias")):
            parts = tensors[name].chunk(3 * split_heads)  # rows: H queries, H keys, H values
            for index, part in enumerate(parts):
                kind = ("query", "key", "value")[index // split_heads]
                chosen[f"{name}[{kind}.{index % split_heads}]"] = part
        else:
            chosen[name] = tensors[name]
    return chosen


def initialize_as_gpt2(tower: nn.Module, layers: int) -> None:
    """Normal 0.02, residual projections scaled down by depth, biases zero (Radford et al. 2019)."""
    for name, parameter in tower.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif name.endswith(("projection.weight", "contract.weight")):
            nn.init.normal_(parameter, std=0.02 * (2 * layers) ** -0.5)
        elif "norm" not in name:
            nn.init.normal_(parameter, std=0.02)
