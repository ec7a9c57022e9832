"""What turns characters into token ids and back."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Tokenizer(Protocol):
    """Ids run from 0 to ``vocabulary_size`` − 1. ``sha256``: hex, of all that decides an id."""

    @property
    def vocabulary_size(self) -> int: ...

    @property
    def sha256(self) -> str: ...

    def encode(self, text: str) -> NDArray[np.uint32]:
        """Ids (N,). Raises DataError naming what the vocabulary does not hold."""

    def decode(self, ids: Sequence[int]) -> str: ...
