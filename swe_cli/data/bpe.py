"""Byte-level byte-pair encoding, trained on the training split (Sennrich et al. 2016; GPT-2)."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swe_cli.contracts import Tokenizer
from swe_cli.data.cache import cache_folder, write_cached
from swe_cli.data.text import Text, word_end
from swe_cli.errors import DataError, UsageError

FORMAT_VERSION = 1
BYTE_VALUES = 256
PIECE = 1 << 13  # characters; the library is several times faster on short pieces, in parallel


class BpeTokenizer(Tokenizer):
    """Any text can be encoded: a character without a merge is written as its UTF-8 bytes."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.vocabulary_size = int(backend.get_vocab_size())
        model = json.loads(backend.to_str())["model"]
        identity = json.dumps([model["vocab"], model["merges"]], sort_keys=True)
        self.sha256 = hashlib.sha256(f"bpe\n{identity}".encode()).hexdigest()

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
        return np.concatenate([np.zeros(0, np.uint32), *ids])

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
    try:
        sha256, _, serialized = path.read_bytes().partition(b"\n")
    except OSError:  # absent; where the folder is out of reach, writing says so
        sha256 = serialized = b""
    if hashlib.sha256(serialized).hexdigest().encode() != sha256:
        serialized = _train(text, vocabulary_size)
        sha256 = hashlib.sha256(serialized).hexdigest().encode()
        write_cached(path, sha256 + b"\n" + serialized)
    return BpeTokenizer(tokenizers.Tokenizer.from_str(serialized.decode()))


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
    while text:
        end = word_end(text[:PIECE]) if len(text) > PIECE else len(text)
        yield text[:end]
        text = text[end:]
