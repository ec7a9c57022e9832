"""A decoder-only GPT, read top-down.

Shapes: B windows, T positions, C width, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from swe_cli.contracts import IGNORED, Count, DataShape, Fraction, Model, Prediction
from swe_cli.errors import UsageError
from swe_cli.models.transformer import Block, Cache, Transformer, initialize_as_gpt2
from swe_cli.records import Batch


class GPT(Transformer):
    """Token ids in, next-token logits and losses out (Radford et al. 2019; pre-LN).

    ``attention_scale``: "head" divides by √D, "width" by √C (the SWE paper's code does).
    ``initialization``: "gpt2" (normal 0.02, residual projections scaled by depth) or "torch".
    ``split_heads``: ``prunable()`` shows query, key and value of every head as a tensor of its own,
    so that per-tensor thresholds are per head, while the arithmetic stays fused.
    """

    image_tokens = 0

    def __init__(
        self,
        data: DataShape,
        *,
        layers: Count,
        heads: Count,
        width: Count,
        context: Count,
        dropout: Fraction,
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
        if width % heads:
            raise UsageError(f"model.width={width} is not a multiple of model.heads={heads}.")
        if tied_head and head_bias:
            raise UsageError("A tied head has no bias.", "Set model.head_bias=false.")
        self.context, self.width = context, width
        self.token_embedding = nn.Embedding(data.vocabulary_size, width)
        self.position_embedding = nn.Embedding(context, width)
        self.dropout = nn.Dropout(dropout)
        scale = width**-0.5 if attention_scale == "width" else None
        of_heads: dict[str, Any] = {"qkv_bias": qkv_bias, "split_heads": split_heads}
        options = {"causal": True, "scale": scale, "bias": bias, **of_heads}
        blocks = (Block(width, heads, dropout, activation, **options) for _ in range(layers))
        self.layers = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, bias=bias)
        self.head = None if tied_head else nn.Linear(width, data.vocabulary_size, bias=head_bias)
        if initialization == "gpt2":
            initialize_as_gpt2(self, layers)

    @property
    def language(self) -> "GPT":
        """What reads and writes tokens: the model itself."""
        return self

    def forward(self, batch: Batch) -> Prediction:
        logits = self.logits(self.hidden(self.inputs(batch)))
        return Prediction(token_losses(logits, batch["targets"]), logits)

    def inputs(self, batch: Batch) -> Tensor:
        """The embedded sequence: (B, T, C)."""
        tokens = batch["tokens"]
        return self.embed(tokens, torch.arange(tokens.shape[1], device=tokens.device))

    def embed(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Token and position embeddings: (B, T) and (T,) or (B, T) → (B, T, C)."""
        embedded: Tensor = self.token_embedding(tokens) + self.position_embedding(positions)
        dropped: Tensor = self.dropout(embedded)
        return dropped

    def hidden(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """The residual stream through every block: (B, T, C) → (B, T, C)."""
        for block in self.layers:
            x = block(x, cache)
        normalised: Tensor = self.norm(x)
        return normalised

    def logits(self, hidden: Tensor) -> Tensor:
        """(B, T, C) → (B, T, V)."""
        head = self.token_embedding if self.head is None else self.head
        return F.linear(hidden, head.weight, getattr(head, "bias", None))


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats, float32: (B, T, V) and (B, T) → (B, T), 0 where ``IGNORED``."""
    losses = F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses.view_as(targets)


@torch.no_grad()
def generate(
    model: Model, tokens: list[int], *, length: int, temperature: float, generator: torch.Generator
) -> list[int]:
    """Continue ``tokens`` by ``length`` sampled ids; temperature 0 always takes the likeliest."""
    device = next(model.parameters()).device
    for _ in range(length):
        window = torch.tensor([tokens[-model.context :]], device=device)
        logits = model({"tokens": window, "targets": window}).logits[0, -1].float().cpu()
        if temperature == 0.0:
            tokens = [*tokens, int(logits.argmax())]
        else:
            weights = torch.softmax(logits / temperature, dim=-1)
            tokens = [*tokens, int(torch.multinomial(weights, 1, generator=generator))]
    return tokens


@torch.inference_mode()
def greedy(model: Any, prompts: Batch, *, length: int, end: int = -1) -> list[list[int]]:
    """The likeliest continuation of every prompt: at most ``length`` ids, up to ``end``, included.

    ``prompts``: ``tokens`` int64 (B, T), filled up on the right, ``lengths`` int64 (B,), and
    whatever else the model looks at. A row's answer does not depend on the rows beside it. A row
    stops where the model has no positions left for it.
    """
    limits = (model.context - prompts["lengths"] + 1).clamp(max=length).tolist()
    tokens = (_cached if hasattr(model, "language") else _anew)(model, prompts, max(limits))
    decoded = prompts["tokens"][:, :0]
    while decoded.shape[1] < max(limits) and not (decoded == end).any(1).all():
        decoded = torch.cat([decoded, next(tokens)], dim=1)
    answers = [row[:limit] for row, limit in zip(decoded.tolist(), limits, strict=True)]
    return [ids[: ids.index(end) + 1] if end in ids else ids for ids in answers]


def _cached(model: Any, prompts: Batch, most: int) -> Iterator[Tensor]:
    """The next token of every row (B, 1), and the next. ``model``: its ``language``, a GPT, reads
    ``image_tokens`` positions of something else, then text, both of which its ``inputs`` embed.
    """
    language, x = model.language, model.inputs(prompts)  # (B, N + T, C)
    rows = torch.arange(len(x), device=x.device)
    places = model.image_tokens + prompts["lengths"]  # (B,): where the next token will stand
    cache = Cache(min(x.shape[1] + most - 1, language.context))
    here = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
    last = places - 1
    while True:
        hidden = language.hidden(x, cache.at(here))[rows, last]
        token = language.logits(hidden).argmax(-1, keepdim=True)  # (B, 1)
        yield token
        here = places.clamp(max=cache.slots - 1)[:, None]  # of a row at its limit, unread
        x, last, places = language.embed(token, here), torch.zeros_like(last), places + 1


def _anew(model: Any, prompts: Batch, most: int) -> Iterator[Tensor]:
    """The same of any model: all is read again for every token."""
    tokens = F.pad(prompts["tokens"], (0, most))
    rows = torch.arange(len(tokens), device=tokens.device)
    for step in range(most):
        places = prompts["lengths"] + step
        read = tokens[:, : min(int(places.max()), model.context)]
        logits = model({**prompts, "tokens": read, "targets": read}).logits
        tokens[rows, places] = logits[rows, (places - 1).clamp(max=read.shape[1] - 1)].argmax(-1)
        yield tokens[rows, places][:, None]
