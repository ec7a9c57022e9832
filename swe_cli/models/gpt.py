"""A decoder-only GPT, read top-down.

Shapes: B windows, T positions, C width, H heads, D = C / H, V vocabulary.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swe_cli.contracts import IGNORED, Batch, Prediction, PrunableSet, Tensors
from swe_cli.errors import UsageError


class GPT(nn.Module):
    """Token ids in, next-token logits and losses out (Radford et al. 2019; pre-LN).

    ``attention_scale``: "head" divides by √D, "width" by √C (the SWE paper's code does).
    ``initialization``: "gpt2" (normal 0.02, residual projections scaled by depth) or "torch".
    ``split_heads``: ``prunable()`` shows query, key and value of every head as a tensor of its own,
    so that per-tensor thresholds are per head, while the arithmetic stays fused.
    """

    def __init__(
        self,
        vocabulary_size: int,
        *,
        layers: int,
        heads: int,
        width: int,
        context: int,
        dropout: float,
        activation: Literal["relu", "gelu"],
        bias: bool,
        qkv_bias: bool,
        head_bias: bool,
        tied_head: bool,
        attention_scale: Literal["head", "width"],
        initialization: Literal["gpt2", "torch"],
        split_heads: bool,
    ) -> None:
        super().__init__()
        if min(layers, heads, width, context) < 1:
            raise UsageError("model.layers, heads, width and context must be at least 1.")
        if width % heads:
            raise UsageError(f"model.width={width} is not a multiple of model.heads={heads}.")
        if not 0.0 <= dropout < 1.0:
            raise UsageError(f"model.dropout={dropout} is not in [0, 1).")
        if tied_head and head_bias:
            raise UsageError("A tied head has no bias.", "Set model.head_bias=false.")
        self.context, self.heads, self.split_heads = context, heads, split_heads
        scale = (width if attention_scale == "width" else width // heads) ** -0.5
        self.token_embedding = nn.Embedding(vocabulary_size, width)
        self.position_embedding = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            Block(
                width,
                attention=Attention(width, heads, dropout, scale, bias=bias, qkv_bias=qkv_bias),
                mlp=MLP(width, dropout, activation, bias=bias),
                bias=bias,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width, bias=bias)
        self.head = None if tied_head else nn.Linear(width, vocabulary_size, bias=head_bias)
        if initialization == "gpt2":
            self._initialize(residual_std=0.02 * (2 * layers) ** -0.5)

    def forward(self, batch: Batch) -> Prediction:
        tokens, targets = batch["tokens"], batch["targets"]
        logits = self.logits(self.embed(tokens))
        losses = F.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="none"
        )
        return Prediction(losses.view_as(targets), logits)

    def embed(self, tokens: Tensor) -> Tensor:
        """Token and position embeddings: (B, T) → (B, T, C)."""
        positions = self.position_embedding.weight[: tokens.shape[1]]  # (T, C)
        embedded: Tensor = self.dropout(self.token_embedding(tokens) + positions)
        return embedded

    def logits(self, x: Tensor) -> Tensor:
        """The residual stream through every block and the head: (B, T, C) → (B, T, V)."""
        for block in self.layers:
            x = block(x)
        x = self.norm(x)
        head = self.token_embedding if self.head is None else self.head
        logits: Tensor = F.linear(x, head.weight, getattr(head, "bias", None))
        return logits

    def prunable(self, tensors: Mapping[str, Tensor], which: PrunableSet) -> Tensors:
        """Views of the prunable part of ``tensors``; see ``contracts.Model``.

        ``linear``: the matrices of attention and MLP. ``all``: every trainable parameter.
        """
        linear = ("qkv.weight", "projection.weight", "expand.weight", "contract.weight")
        chosen: Tensors = {}
        for name, _ in self.named_parameters():
            if which == "linear" and not name.endswith(linear):
                continue
            if self.split_heads and name.endswith(("qkv.weight", "qkv.bias")):
                parts = tensors[name].chunk(3 * self.heads)  # rows: H queries, H keys, H values
                for index, part in enumerate(parts):
                    role = ("query", "key", "value")[index // self.heads]
                    chosen[f"{name}[{role}.{index % self.heads}]"] = part
            else:
                chosen[name] = tensors[name]
        return chosen

    def blocks(self) -> list["Block"]:
        return list(self.layers)  # type: ignore[arg-type]

    def _initialize(self, residual_std: float) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.endswith(("projection.weight", "contract.weight")):
                nn.init.normal_(parameter, std=residual_std)
            elif "norm" not in name:
                nn.init.normal_(parameter, std=0.02)


class Block(nn.Module):
    """Attention and MLP, each on a normalised copy of the residual stream."""

    def __init__(self, width: int, attention: "Attention", mlp: "MLP", *, bias: bool) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width, bias=bias), attention
        self.mlp_norm, self.mlp = nn.LayerNorm(width, bias=bias), mlp

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x))
        x = x + self.mlp(self.mlp_norm(x))
        return x


class Attention(nn.Module):
    """Causal self-attention; query, key and value are one matrix, head by head in each third."""

    def __init__(
        self,
        width: int,
        heads: int,
        dropout: float,
        scale: float,
        *,
        bias: bool,
        qkv_bias: bool,
    ) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.projection = nn.Linear(width, width, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, T, D)
        dropout = self.dropout.p if self.training else 0.0
        y = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, dropout_p=dropout, scale=self.scale
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


@torch.no_grad()
def generate(
    model: GPT, tokens: list[int], *, length: int, temperature: float, generator: torch.Generator
) -> list[int]:
    """Continue ``tokens`` by ``length`` sampled ids; temperature 0 always takes the likeliest."""
    device = model.token_embedding.weight.device
    for _ in range(length):
        window = torch.tensor([tokens[-model.context :]], device=device)
        logits = model.logits(model.embed(window))[0, -1].float().cpu()
        if temperature == 0.0:
            tokens = [*tokens, int(logits.argmax())]
        else:
            weights = torch.softmax(logits / temperature, dim=-1)
            tokens = [*tokens, int(torch.multinomial(weights, 1, generator=generator))]
    return tokens
