"""One token a word, digit or sign: for questions and answers, not for running text."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swe_cli.contracts import Tokenizer
from swe_cli.data.text import Text

# A space belongs to what follows it; digits stand alone, so that numbers can be spelt.
PIECE = re.compile(r" ?[^\W\d_]+| ?\d| ?[^\w\s]| ?_|\s")


class WordTokenizer(Tokenizer):
    """Ids count through the sorted ``vocabulary``; the last, ``unknown``, is any other word."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.vocabulary = list(vocabulary)
        self.unknown = len(self.vocabulary)
        self.vocabulary_size = self.unknown + 1
        self.sha256 = hashlib.sha256("\x00".join(["words", *vocabulary]).encode()).hexdigest()
        self._ids = {piece: index for index, piece in enumerate(vocabulary)}

    def encode(self, text: str) -> NDArray[np.uint32]:
        """Ids (N,)."""
        ids = [self._ids.get(piece, self.unknown) for piece in PIECE.findall(text)]
        return np.array(ids, np.uint32)

    def decode(self, ids: Sequence[int]) -> str:
        pieces = [*self.vocabulary, "�"]
        return "".join(pieces[index] for index in ids)


def words(text: Text) -> WordTokenizer:
    """A vocabulary of the training split's words."""
    lines = (line for chunk in text.chunks("train") for line in chunk.split("\n"))
    return WordTokenizer(sorted({piece for line in lines for piece in PIECE.findall(line)}))
