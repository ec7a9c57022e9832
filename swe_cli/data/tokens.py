"""Token windows of a text: the one data set behind every text and tokenizer."""

import hashlib
import json
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from swe_cli.contracts import IGNORED, Batch, DataShape, Split
from swe_cli.data.text import Text
from swe_cli.data.tokenizer import Tokenizer
from swe_cli.errors import DataError

Tokens = NDArray[np.unsignedinteger]


class TextDataset:
    """The ``Dataset`` of a tokenized text; see ``swe_cli.contracts``."""

    def __init__(self, text: Text, tokenizer: Tokenizer, tokens: dict[Split, Tokens]) -> None:
        self.text = text
        self.tokenizer = tokenizer
        self.tokens = tokens
        self.sha256 = _hash({"text": text.sha256, "splits": text.splits})
        self.shape = DataShape(tokenizer.vocabulary_size)

    def random_batch(self, split: Split, *, size: int, context: int, seed: int) -> Batch:
        """(B, T) int64. Raises DataError for a split shorter than one window."""
        tokens = self._tokens(split, context)
        generator = torch.Generator().manual_seed(seed)
        starts = torch.randint(len(tokens) - context, (size, 1), generator=generator).numpy()
        windows = torch.from_numpy(tokens[starts + np.arange(context + 1)].astype(np.int64))
        return {"tokens": windows[:, :-1].contiguous(), "targets": windows[:, 1:].contiguous()}

    def windows(self, split: Split, *, context: int, size: int) -> Iterator[Batch]:
        """(b, T) int64, stride T: every token but the first is predicted once.

        The last window is filled up with token 0 and targets ``IGNORED``. Raises DataError, before
        the first batch is asked for, when the split is shorter than one window.
        """
        return _windows(self._tokens(split, context), context, size)

    def steps_per_epoch(self, *, size: int, context: int) -> int:
        return -(-len(self.tokens["train"]) // (size * context))

    def characters(self, split: Split) -> int:
        """Characters of a split less those of its first token, which nobody predicts."""
        start, end = self.text.splits[split]
        first = self._tokens(split, 1)[:1]
        return end - start - len(self.tokenizer.decode(first.tolist()))

    def fingerprint(self, split: Split, *, context: int) -> str:
        """Sixteen hex digits of what a loss on this split depends on, besides the weights."""
        protocol = {
            "text": self.text.sha256,
            "split": split,
            "characters": self.text.splits[split],
            "window": context,
            "stride": context,
            "tokenizer": self.tokenizer.sha256,
        }
        return _hash(protocol)[:16]

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text).tolist()
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def _tokens(self, split: Split, context: int) -> Tokens:
        tokens = self.tokens[split]
        if len(tokens) < context + 1:
            raise DataError(
                f"The {split} split has {len(tokens):,} tokens, but a window of context "
                f"{context:,} needs {context + 1:,}.",
                f"Lower model.context, or make the {split} split of data larger.",
            )
        return tokens


def tokenize(text: Text, tokenizer: Tokenizer) -> TextDataset:
    """Encode every split, chunk by chunk."""
    encoded: dict[tuple[int, int], Tokens] = {}
    for split, bounds in text.splits.items():
        if bounds not in encoded:
            encoded[bounds] = _encode(text, split, tokenizer)
    return TextDataset(
        text, tokenizer, {split: encoded[text.splits[split]] for split in text.splits}
    )


def _encode(text: Text, split: Split, tokenizer: Tokenizer) -> Tokens:
    dtype = np.uint16 if tokenizer.vocabulary_size <= 1 << 16 else np.uint32
    chunks = [tokenizer.encode(chunk).astype(dtype) for chunk in text.chunks(split)]
    tokens: Tokens = np.concatenate(chunks) if chunks else np.zeros(0, dtype)
    unknown = getattr(tokenizer, "unknown", None)
    if unknown is not None and (tokens == unknown).any():
        raise DataError(
            f"The {split} split holds words that the tokenizer does not know; their loss would "
            "mean nothing.",
            "For running text choose tokenizer=chars or tokenizer=bpe.",
        )
    return tokens


def _windows(tokens: Tokens, context: int, size: int) -> Iterator[Batch]:
    for first in range(0, len(tokens) - 1, context * size):
        part = tokens[first : first + context * size + 1]
        predicted = len(part) - 1
        windows = -(-predicted // context)
        inputs = np.zeros(windows * context, np.int64)
        targets = np.full(windows * context, IGNORED, np.int64)
        inputs[:predicted], targets[:predicted] = part[:-1], part[1:]
        yield {
            "tokens": torch.from_numpy(inputs.reshape(windows, context)),
            "targets": torch.from_numpy(targets.reshape(windows, context)),
        }


def _hash(value: object) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
