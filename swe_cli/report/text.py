"""How numbers and names are spelt wherever people read them."""

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np

NOTHING = "–"
MARKS = {-1: "▼", 0: "", 1: "▲"}  # the sign of a difference that is certain

_DECIMALS = ((10, ".4f"), (100, ".3f"), (1000, ".2f"), (10_000, ".1f"))
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CLEAR_WITHOUT_KEY = ("allocation", "base", "pattern", "roles", "by")


def number(value: float | None, *, signed: bool = False, decimals: int = 4) -> str:
    """So many decimals; fewer where a loss has exploded, so that columns stay six digits narrow."""
    if value is None:
        return NOTHING
    spec = next((spec for top, spec in _DECIMALS if abs(value) < top), ".1e")
    spec = spec.replace("4", str(decimals))
    return format(value, f"+z{spec}" if signed else spec)


def short(value: float, fewer: int = 0) -> str:
    """A difference in at most five signs, for cells: ``+.021``, ``-1.34``, ``+12.3``, ``+2e3``.

    ``fewer``: decimals less than that, where there is little room.
    """
    if abs(value) < 0.0005 * 10**fewer:
        return ".000"[: 4 - fewer]
    for top, places in ((0.9995, 3), (9.995, 2), (99.95, 1), (9999.5, 0)):
        if abs(value) < top:
            words = f"{value:+.{max(0, places - fewer)}f}"
            return words[0] + words[1:].removeprefix("0")
    return f"{value:+.0e}".replace("e+0", "e").replace("e+", "e")


def shortened(words: str, width: int) -> str:
    """At most ``width`` signs: the longest of its parts end in …, the first only at last."""
    first, *parts = words.split(", ")
    while len(short := ", ".join([first, *parts])) > width:
        longest = max(parts, key=len, default="")
        if len(longest) <= 3:
            return f"{short[: width - 1]}…"
        parts[parts.index(longest)] = longest.rstrip("…")[:-1] + "…"
    return short


def exact(value: float | None) -> str:
    """The shortest decimal that is this number: 0.3 is ``0.3``, 0.0 is ``0``."""
    return "" if value is None else f"{Decimal(repr(float(value))).normalize():f}"


def word(value: Any) -> str:
    """A setting's value as it is typed."""
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    return exact(value) if isinstance(value, float) else str(value)


def label(name: str, parts: Sequence[str]) -> str:
    """``swe (base final, tracking.every 10)``, or the bare name."""
    return f"{name} ({', '.join(parts)})" if parts else name


def short_label(name: str, parts: Sequence[str]) -> str:
    """``swe, global``: settings without their keys where the value alone says it."""
    pairs = (part.partition(" ") for part in parts)
    words = (value if key in _CLEAR_WITHOUT_KEY else f"{key} {value}" for key, _, value in pairs)
    return ", ".join([name, *words])


def count(size: int, thing: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{size} {thing}" if size == 1 else f"{size} {thing}s"


def printable(words: str) -> str:
    """Without what would command a terminal; lines and tabs stay."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", words)


def markdown_table(lines: Iterable[Iterable[str]], *, left: int) -> str:
    """The first of ``lines`` is the head; ``left`` columns are of words, the others of numbers.

    What users named is text: no markup, no column of its own.
    """
    head, *rows = ([_in_markdown(cell) for cell in line] for line in lines)
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))


def _in_markdown(cell: str) -> str:
    line = printable(cell).split("\n")[0]
    return line.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
