"""Guessing what a user meant."""

import difflib
from collections.abc import Iterable


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like ``word``, or None where none is close."""
    words = [str(k) for k in known]
    alike = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    # mag means magnitude and layers means model.layers: too short to look alike.
    last = word.rpartition(".")[2]
    longer = [w for w in words if last and (w.startswith(word) or w.rpartition(".")[2] == last)]
    first = word.partition(".")[0]
    nearest = [w for w in longer if "." in word and w.partition(".")[0] == first]
    return next(iter([*nearest, *alike, *longer]), None)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` Did you mean …?`` with a space before it, or nothing."""
    found = closest(word, known)
    return f" Did you mean {found}?" if found else ""
