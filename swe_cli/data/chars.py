"""One token a character."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swe_cli.contracts import Tokenizer
from swe_cli.data.text import Text
from swe_cli.errors import DataError

CODE_POINTS = 0x110000
UNKNOWN = np.iinfo(np.uint32).max


class CharTokenizer(Tokenizer):
    """Ids count through ``vocabulary``: distinct characters in code point order."""

    def __init__(self, vocabulary: str) -> None:
        self.vocabulary, self.vocabulary_size = vocabulary, len(vocabulary)
        self.sha256 = hashlib.sha256(f"chars\n{vocabulary}".encode()).hexdigest()
        self._ids = np.full(CODE_POINTS, UNKNOWN, np.uint32)
        self._ids[_code_points(vocabulary)] = np.arange(len(vocabulary), dtype=np.uint32)

    def encode(self, text: str) -> NDArray[np.uint32]:
        """Ids (N,), one a character. Raises DataError naming unknown characters."""
        ids = self._ids[_code_points(text)]
        if (ids == UNKNOWN).any():
            unknown = sorted(set(text) - set(self.vocabulary))
            shown = ", ".join(repr(character) for character in unknown[:10])
            raise DataError(
                f"The vocabulary of this text does not hold {shown}"
                f"{' and others' if len(unknown) > 10 else ''}.",
                "Leave them out, or train with tokenizer=bpe, which can write anything.",
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.vocabulary[index] for index in ids)


def chars(text: Text) -> CharTokenizer:
    """A vocabulary of the characters that the splits in use hold."""
    used = np.zeros(CODE_POINTS, bool)
    for split in text.splits:
        for chunk in text.chunks(split):
            used[_code_points(chunk)] = True
    return CharTokenizer("".join(map(chr, np.flatnonzero(used))))


def _code_points(text: str) -> NDArray[np.uint32]:
    # A prompt from the command line may hold lone surrogates: let them be unknown, not crash.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
