"""Characters to token ids, and token windows: of a text, every token of which is predicted."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from swe_cli.contracts import IGNORED, Dataset, DataShape, Split, Tokenizer
from swe_cli.data.cache import digest
from swe_cli.data.text import Text
from swe_cli.errors import DataError
from swe_cli.records import Batch

Tokens = NDArray[np.unsignedinteger]


class TokenizedDataset(Dataset):
    """What data sets have in common that a tokenizer makes out of characters."""

    def __init__(self, tokenizer: Tokenizer, sha256: str, shape: DataShape) -> None:
        self.tokenizer, self.sha256, self.shape = tokenizer, sha256, shape

    def encode(self, text: str) -> list[int]:
        ids: list[int] = np.asarray(self.tokenizer.encode(text)).tolist()
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def fingerprint_of(self, split: Split, **protocol: object) -> str:
        """Sixteen hex digits of what a loss on a split depends on, besides the weights."""
        own = {"split": split, "tokenizer": self.tokenizer.sha256}
        return digest(protocol | own)[:16]


class TextDataset(TokenizedDataset):
    """A text, encoded chunk by chunk; two names of one split share their tokens.

    Raises DataError where a tokenizer of words does not know a word.
    """

    def __init__(self, text: Text, tokenizer: Tokenizer) -> None:
        sha256 = digest({"text": text.sha256, "splits": text.splits})
        super().__init__(tokenizer, sha256, DataShape(tokenizer.vocabulary_size))
        self.text = text
        self.tokens: dict[Split, Tokens] = {}
        dtype = np.uint16 if tokenizer.vocabulary_size <= 1 << 16 else np.uint32
        encoded: dict[tuple[int, int], Tokens] = {}
        for split, bounds in text.splits.items():
            if bounds not in encoded:
                chunks = (
                    np.asarray(tokenizer.encode(chunk), dtype) for chunk in text.chunks(split)
                )
                encoded[bounds] = np.concatenate([np.zeros(0, dtype), *chunks])
            self.tokens[split] = encoded[bounds]
            if tokenizer.unknown is not None and (encoded[bounds] == tokenizer.unknown).any():
                raise DataError(
                    f"The {split} split holds words that the tokenizer does not know; their loss "
                    "would mean nothing.",
                    "For running text choose tokenizer=chars or tokenizer=bpe.",
                )

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
        tokens = self._tokens(split, context)
        starts = range(0, len(tokens) - 1, context * size)
        return (_windows(tokens[first : first + context * size + 1], context) for first in starts)

    def steps_per_epoch(self, *, size: int, context: int) -> int:
        return -(-len(self.tokens["train"]) // (size * context))

    def fingerprint(self, split: Split, *, context: int) -> str:
        text, characters = self.text.sha256, self.text.splits[split]
        return self.fingerprint_of(
            split, text=text, characters=characters, window=context, stride=context
        )

    def characters(self, split: Split) -> int:
        """Characters of a split less those of its first token, which nobody predicts."""
        start, end = self.text.splits[split]
        return end - start - len(self.decode(self._tokens(split, 1)[:1].tolist()))

    def _tokens(self, split: Split, context: int) -> Tokens:
        tokens = self.tokens[split]
        if len(tokens) < context + 1:
            raise DataError(
                f"The {split} split has {len(tokens):,} tokens, but a window of context "
                f"{context:,} needs {context + 1:,}.",
                f"Lower model.context, or make the {split} split of data larger.",
            )
        return tokens


def _windows(tokens: Tokens, context: int) -> Batch:
    predicted = len(tokens) - 1
    shape = (-(-predicted // context), context)
    inputs, targets = np.zeros(shape, np.int64), np.full(shape, IGNORED, np.int64)
    inputs.flat[:predicted], targets.flat[:predicted] = tokens[:-1], tokens[1:]
    return {"tokens": torch.from_numpy(inputs), "targets": torch.from_numpy(targets)}
