"""What every tower here is made of: pre-LN blocks of attention and MLP.

Shapes: B rows, T positions, C width, H heads, D = C / H, S slots of a cache.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swe_cli.contracts import PrunableSet, Tensors, UnitKind, Units

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}
MATRICES = ("qkv.weight", "projection.weight", "expand.weight", "contract.weight")
# The parameters of an MLP; and, where it is factorised, those that stand in their place.
DENSE = ("expand.weight", "expand.bias", "contract.weight", "contract.bias")
FACTORS = (".left", ".right", ".core", ".expand_bias", ".contract_bias")


class Block(nn.Module):
    """Attention and MLP, each on a normalised copy of the residual stream.

    ``scale``: of the scores of attention; by default 1 / √D.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float,
        *,
        causal: bool,
        scale: float | None = None,
        activation: str = "gelu",
        bias: bool = True,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, bias=bias)
        self.attention = Attention(width, heads, dropout, scale, causal, bias, qkv_bias)
        self.mlp_norm = nn.LayerNorm(width, bias=bias)
        self.mlp = MLP(width, dropout, activation, bias=bias)

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
        scale: float | None,
        causal: bool,
        bias: bool,
        qkv_bias: bool,
    ) -> None:
        super().__init__()
        self.head_width, self.causal = width // heads, causal
        self.scale = scale or self.head_width**-0.5
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.projection = nn.Linear(width, width, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cache: "Cache | None" = None) -> Tensor:
        b, t, _ = x.shape
        split = self.qkv(x).view(b, t, 3, -1, self.head_width)  # fewer heads, where some are cut
        q, k, v = split.permute(2, 0, 3, 1, 4)  # (B, H, T, D)
        if cache is not None:
            k, v = cache.extend(self, k, v)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if cache is None else cache.mask,
            is_causal=self.causal and cache is None,
            dropout_p=self.dropout.p if self.training else 0.0,
            scale=self.scale,
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

        bias = f"{prefix}.projection.bias" if self.projection.bias is not None else None
        return Units(prefix, owned, adds, bias)


class MLP(nn.Module):
    """Two matrices around an activation: C → ``hidden`` → ``out``, by default C → 4C → C."""

    def __init__(
        self,
        width: int,
        dropout: float,
        activation: str,
        *,
        bias: bool,
        hidden: int | None = None,
        out: int | None = None,
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

    def prunable(self, tensors: Mapping[str, Tensor], which: PrunableSet) -> Tensors:
        """Views of the prunable part of ``tensors``; see ``contracts.Model``."""
        return prunable_of(self, tensors, which)

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

        bias = f"{prefix}.contract.bias" if self.contract.bias is not None else None
        return Units(prefix, owned, adds, bias)


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


def units_of(model: nn.Module, kind: UnitKind) -> list[Units]:
    """The units of every block, in the order of the modules."""
    owner = Attention if kind == "head" else MLP
    return [m.units(name) for name, m in model.named_modules() if isinstance(m, owner)]


def prunable_of(
    tower: nn.Module, tensors: Mapping[str, Tensor], which: PrunableSet, head_width: int = 0
) -> Tensors:
    """Views of the prunable part of a tower's ``tensors``; see ``contracts.Model``.

    ``linear``: the matrices of attention and MLP. ``all``: every parameter. With ``head_width``,
    query, key and value of each head are tensors of their own, of so many rows. Factors are not
    picked: where an MLP is factorised, the matrices are that they stand for.
    """
    names: dict[str, None] = {}
    for name, _ in tower.named_parameters():
        stem, _, _ = name.rpartition(".")
        factorised = name.endswith(FACTORS)
        names |= dict.fromkeys([f"{stem}.{of}" for of in DENSE] if factorised else [name])
    chosen: Tensors = {}
    for name in names:
        if name not in tensors or (which == "linear" and not name.endswith(MATRICES)):
            continue
        if head_width and name.endswith(("qkv.weight", "qkv.bias")):
            parts = torch.split(tensors[name], head_width)  # rows: H queries, H keys, H values
            heads = range(len(parts) // 3)
            labels = [f"{kind}.{head}" for kind in ("query", "key", "value") for head in heads]
            chosen |= {f"{name}[{at}]": part for at, part in zip(labels, parts, strict=True)}
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
