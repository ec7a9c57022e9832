"""Greedy decoding, many rows at once, with a key–value cache."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from swe_cli.models.gpt import GPT
from swe_cli.models.transformer import Cache
from swe_cli.records import Batch


class Reader(Protocol):
    """A model whose GPT reads ``image_tokens`` positions of something else, then text."""

    image_tokens: int

    @property
    def language(self) -> GPT: ...

    def inputs(self, batch: Batch) -> Tensor: ...


@torch.inference_mode()
def greedy(
    model: Reader, prompts: Batch, *, length: int, end: int | None = None, cached: bool = True
) -> list[list[int]]:
    """The likeliest continuation of every prompt: at most ``length`` ids, up to ``end``, included.

    ``prompts``: ``tokens`` int64 (B, T), filled up on the right, ``lengths`` int64 (B,), and
    whatever else the model looks at. A row's answer does not depend on the rows beside it.
    ``cached=False`` reads the whole text again for every token: the slow way, to compare with.
    A row stops where the model has no positions left for it.
    """
    language, lengths = model.language, prompts["lengths"]
    x = model.inputs(prompts)  # (B, N + T, C)
    ends = model.image_tokens + lengths  # (B,): where the next token will stand
    limits = (language.context - ends + 1).clamp(max=length).tolist()
    x = F.pad(x, (0, 0, 0, max(limits) - 1))  # room for what is decoded
    rows, slots = torch.arange(len(ends), device=x.device), min(x.shape[1], language.context)
    x = x[:, :slots]
    cache = Cache(slots) if cached else None
    here = torch.arange(slots, device=x.device).expand(len(rows), -1)
    hidden = language.hidden(x, cache.at(here) if cache else None)[rows, ends - 1]
    decoded = torch.empty(len(rows), 0, dtype=torch.int64, device=x.device)
    while True:
        token = language.logits(hidden).argmax(-1)  # (B,)
        decoded = torch.cat([decoded, token[:, None]], dim=1)
        if decoded.shape[1] == max(limits) or _all_ended(decoded, end):
            cut = zip(decoded.tolist(), limits, strict=True)
            return [_until(end, row[:limit]) for row, limit in cut]
        at = ends.clamp(max=slots - 1)  # a row at its limit goes on in its last place, unread
        new = language.embed(token, at)  # (B, C)
        if cache:
            hidden = language.hidden(new[:, None], cache.at(at[:, None]))[:, 0]
        else:
            x[rows, at] = new
            hidden = language.hidden(x)[rows, at]
        ends = ends + 1


def _all_ended(decoded: Tensor, end: int | None) -> bool:
    return end is not None and bool(torch.eq(decoded, end).any(dim=1).all())


def _until(end: int | None, ids: list[int]) -> list[int]:
    return ids[: ids.index(end) + 1] if end in ids else ids
