"""How numbers and names are spelt wherever people read them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from swe_cli.records import Kind, Scalar

NOTHING = "–"
OF_MASKS = ("allocation", "pattern")  # settings that not every line has

_DECIMALS = ((10, 4), (100, 3), (1000, 2), (10_000, 1))

KIND_NAMES: dict[Kind, str] = {
    "dense": "dense",
    "dense_best": "dense best",
    "dense_recovered": "dense recovered",
    "dense_averaged": "dense averaged",
    "dense_blind": "dense, images shuffled",
    "pruned": "pruned",
}


def number(value: float | None, *, signed: bool = False) -> str:
    """Four decimals; fewer where a loss has exploded, so that columns stay six digits narrow."""
    if value is None:
        return NOTHING
    size = abs(value)
    decimals = next((places for top, places in _DECIMALS if size < top), None)
    spec = ".1e" if decimals is None else f".{decimals}f"
    return format(value, f"+{spec}" if signed else spec)


def short(value: float) -> str:
    """A difference in at most five signs, for cells: ``+.021``, ``-1.34``, ``+12.3``, ``+2e3``."""
    if not math.isfinite(value):
        return f"{value:+}"
    for top, places in ((9.995, 2), (99.95, 1), (9999.5, 0)):
        if abs(value) < 0.9995:
            return ".000" if abs(value) < 0.0005 else f"{value:+.3f}".replace("0.", ".", 1)
        if abs(value) < top:
            return f"{value:+.{places}f}"
    return f"{value:+.0e}".replace("e+0", "e").replace("e+", "e")


def bracket(low: float | None, high: float | None, *, signed: bool = False) -> str:
    """``[low, high]``, or nothing where the interval is unknown."""
    if low is None or high is None:
        return ""
    return f"[{number(low, signed=signed)}, {number(high, signed=signed)}]"


def exact(value: float | None) -> str:
    """The shortest decimal that is this number: 0.3 is ``0.3``, 0.0 is ``0``."""
    if value is None:
        return ""
    return f"{Decimal(repr(float(value))).normalize():f}"


def percent(fraction: float, *, decimals: int | None = None) -> str:
    """A fraction in percent, exact unless ``decimals`` is given: 0.625 is ``62.5%``."""
    if decimals is not None:
        return f"{fraction * 100:.{decimals}f}%"
    return f"{(Decimal(repr(float(fraction))) * 100).normalize():f}%"


def differences(groups: Sequence[Mapping[str, Scalar]]) -> list[tuple[str, ...]]:
    """What tells each group from the others, in words: ``("base final", "tracking.every 10")``.

    Only keys whose value differs between groups are said; a group without one stays silent. What
    draws its own masks has no allocation or pattern: that others have one tells nothing of them.
    """
    keys = [key for key in _keys(groups) if len(_values(key, groups)) > 1]
    return [
        tuple(f"{key} {_word(group[key])}" for key in keys if group.get(key) is not None)
        for group in groups
    ]


def _values(key: str, groups: Sequence[Mapping[str, Scalar]]) -> set[str]:
    found = [group.get(key) for group in groups]
    return {_word(value) for value in found if value is not None or key not in OF_MASKS}


def label(name: str, parts: Sequence[str]) -> str:
    """``swe (base final, tracking.every 10)``, or the bare name."""
    return f"{name} ({', '.join(parts)})" if parts else name


def short_label(name: str, parts: Sequence[str]) -> str:
    """``swe, global``: settings without their keys where the value alone says it."""
    said = ("allocation", "pattern", "roles", "by")
    pairs = (part.partition(" ") for part in parts)
    return ", ".join([name, *(v if key in said else f"{key} {v}" for key, _, v in pairs)])


def listed(items: Iterable[Scalar]) -> str:
    """``0, 1, 2``."""
    return ", ".join(_word(item) for item in items)


def count(size: int, thing: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{size} {thing}" if size == 1 else f"{size} {thing}s"


def _keys(groups: Sequence[Mapping[str, Scalar]]) -> list[str]:
    return list(dict.fromkeys(key for group in groups for key in group))


def _word(value: Scalar) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return exact(value) if isinstance(value, float) else str(value)
