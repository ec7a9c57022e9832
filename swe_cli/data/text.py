"""A text with three splits, handed out in pieces so that a large one never lies in memory."""

from collections.abc import Iterator
from dataclasses import dataclass

from swe_cli.contracts import Split
from swe_cli.data.sources import Source

SPACES = " \t\r\n"


@dataclass(frozen=True)
class Text:
    """A text and its splits: (start, end) in characters, end exclusive."""

    source: Source
    splits: dict[Split, tuple[int, int]]

    @property
    def sha256(self) -> str:
        """Hash of the whole source, used or not; ``splits`` say which part is used."""
        return self.source.sha256

    def chunks(self, split: Split) -> Iterator[str]:
        """A split in pieces of about 2²⁰ characters, cut between words."""
        carried = ""
        for piece in self.source.pieces(*self.splits[split]):
            piece = carried + piece
            end = word_end(piece)
            yield piece[:end]
            carried = piece[end:]
        if carried:
            yield carried


def word_end(text: str) -> int:
    """The last place where a space follows a word: no tokenizer of words joins across it.

    A text without such a place (one endless word, or nothing but spaces) ends at its end.
    """
    for index in range(len(text) - 1, 0, -1):
        if text[index] in SPACES and not text[index - 1].isspace():
            return index
    return len(text)
