"""Byte-level byte-pair encoding, trained on the training split (Sennrich et al. 2016; GPT-2)."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swe_cli.data.cache import cache_folder, write_atomically
from swe_cli.data.text import Text, word_end
from swe_cli.errors import DataError, UsageError

FORMAT_VERSION = 1
BYTE_VALUES = 256
PIECE = 1 << 13  # characters; the library is several times faster on short pieces, in parallel


class BpeTokenizer:
    """Any text can be encoded: a character without a merge is written as its UTF-8 bytes."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    @property
    def vocabulary_size(self) -> int:
        return int(self._backend.get_vocab_size())

    @cached_property
    def sha256(self) -> str:
        model = json.loads(self._backend.to_str())["model"]
        identity = json.dumps([model["vocab"], model["merges"]], sort_keys=True)
        return hashlib.sha256(f"bpe\n{identity}".encode()).hexdigest()

    def encode(self, text: str) -> NDArray[np.uint32]:
        """Ids (N,). Raises DataError for a text that UTF-8 cannot write (lone surrogates)."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"The text is not UTF-8: character {error.start} is {text[error.start]!r}.",
                "Leave it out.",
            ) from None
        encoded = self._backend.encode_batch_fast(list(_pieces(text)), add_special_tokens=False)
        ids = [np.asarray(encoding.ids, dtype=np.uint32) for encoding in encoded]
        return np.concatenate(ids) if ids else np.zeros(0, np.uint32)

    def decode(self, ids: Sequence[int]) -> str:
        """Characters; an unfinished one at either end shows as U+FFFD."""
        return str(self._backend.decode(list(ids), skip_special_tokens=False))


def bpe(text: Text, *, vocabulary_size: int) -> BpeTokenizer:
    """A tokenizer of at most ``vocabulary_size`` tokens, from the cache or trained now.

    Raises UsageError where the package is missing or the size is below 256, StorageError where
    the cache cannot be written.
    """
    if vocabulary_size < BYTE_VALUES:
        raise UsageError(
            f"tokenizer.vocabulary_size={vocabulary_size} is too small.",
            f"{BYTE_VALUES} byte values come first.",
        )
    try:
        import tokenizers
    except ImportError:
        raise UsageError(
            "tokenizer=bpe needs the package tokenizers.", "Type: pip install 'swe-cli[bpe]'"
        ) from None
    trained_on = [text.sha256, text.splits["train"], vocabulary_size]
    key = json.dumps([*trained_on, FORMAT_VERSION, tokenizers.__version__])
    path = cache_folder() / f"bpe-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    serialized = _read(path)
    if serialized is None:
        serialized = _train(text, vocabulary_size)
        digest = hashlib.sha256(serialized).hexdigest()
        write_atomically(path, digest.encode() + b"\n" + serialized)
    return BpeTokenizer(tokenizers.Tokenizer.from_str(serialized.decode()))


def _read(path: Path) -> bytes | None:
    try:
        digest, _, serialized = path.read_bytes().partition(b"\n")
    except OSError:  # absent; where the folder is out of reach, writing says so
        return None
    intact = hashlib.sha256(serialized).hexdigest().encode() == digest
    return serialized if intact else None


def _train(text: Text, vocabulary_size: int) -> bytes:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(text.chunks("train"), trainer=trainer)
    return str(backend.to_str()).encode()


def _pieces(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        piece = text[start : start + PIECE]
        if start + PIECE < len(text):
            piece = piece[: word_end(piece)]
        yield piece
        start += len(piece)
