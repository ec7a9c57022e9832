"""The words of a command told apart: run names, overrides, axes; ranges and paths made exact."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from swe_cli.errors import UsageError

PLURALS = {
    "ratios": "ratio",
    "rates": "rate",
    "criteria": "criterion",
    "allocations": "allocation",
    "patterns": "pattern",
    "recoveries": "recovery",
    "schedules": "schedule",
    "transforms": "transform",
    "seeds": "seed",
}
LARGEST_RANGE = 10_000  # values


@dataclass(frozen=True)
class Tokens:
    """A command's words, told apart: run names, scalar overrides, axes (key → override strings)."""

    runs: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_tokens(words: Iterable[str]) -> Tokens:
    """Tell run names from overrides from axes; see the grammar in the README."""
    runs: list[str] = []
    overrides: list[str] = []
    axes: dict[str, tuple[str, ...]] = {}
    for word in words:
        if _names_a_run(word):
            runs.append(word)
            continue
        key, _, value = word.partition("=")
        if "=" in word and is_path_key(key):
            overrides.append(f"{key}={_quoted_path(key, value)}")
            continue
        name = PLURALS.get(key, key)
        values = _values(key, value, word)
        if len(values) == 1 and key not in PLURALS:
            overrides.append(word if values == [value] else f"{key}={values[0]}")
            continue
        if key.startswith("axes."):
            raise UsageError(
                f"{word}: the values of an axis are given to its own key.",
                f"Write {key.removeprefix('axes.')}={value}",
            )
        if name in axes:
            raise UsageError(f"{name} is given twice.", "Put all its values after one =.")
        axes[name] = tuple(f"{name}={value}" for value in values)
    for word in overrides:
        if word.partition("=")[0] in axes:
            raise UsageError(
                f"{word.partition('=')[0]} is given twice: once as an axis.", f"Leave out {word}"
            )
    return Tokens(tuple(runs), tuple(overrides), axes)


def _names_a_run(word: str) -> bool:
    # os.path answers False where pathlib raises: a word may be longer than any file name.
    return ("=" not in word and not word.startswith(("~", "+"))) or os.path.isdir(word)


def _values(key: str, value: str, word: str) -> list[str]:
    """The values of an override: one, or those of an axis as decimal-exact strings."""
    if "=" in word:
        word = f"{key}={_expand_ranges(key, value)}"
    parsed = _parse(word)
    if "=" in word and not key.strip("+~"):
        raise UsageError(f"{word!r} names no key.", "Overrides are key=value.")
    if not parsed.is_sweep_override():
        if key in PLURALS and value.strip() in ("", "null"):
            raise UsageError(f"{word} names no value.", f"For example: {key}=a,b,c")
        return [word.partition("=")[2]]
    try:
        values = [str(element) for element in parsed.sweep_string_iterator()]
    except Exception:  # glob(…) asks for what only Hydra's own main knows
        values = []
    if not values or not parsed.is_choice_sweep():
        raise UsageError(
            f"{word} is not a list of values.",
            f"Write choices, {key}=a,b,c, or a range, {key}=0.1..0.9",
        )
    if len(set(values)) < len(values):
        raise UsageError(f"{word} names a value twice.", "Name each value once.")
    return values


def _parse(word: str) -> Any:
    try:
        return OverridesParser.create().parse_override(word)
    except Exception as error:  # Hydra's grammar answers with several kinds
        reason = " ".join(str(error).splitlines()[:1]).removesuffix(".")
        raise UsageError(
            f"Cannot read {word!r}: {_plain_reason(reason)}.",
            "Overrides are key=value. Quote a value that holds signs: \"key='a (b)'\"",
        ) from None


def _plain_reason(reason: str) -> str:
    """Hydra's reason, unless it only names a class of its parser."""
    return "it is not key=value" if "Exception" in reason or "override" in reason else reason


# Paths


def is_path_key(key: str) -> bool:
    """Whether a key holds a path, whose value is taken as typed."""
    last = key.lstrip("+").rpartition(".")[2]
    return not key.startswith("~") and last in ("path", "results_dir", "from_run")


def _quoted_path(key: str, value: str) -> str:
    """A path as a Hydra string that reads back as that very path; ``~`` is expanded."""
    if value in ("", "null"):
        return "null"
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    expanded = os.path.expanduser(value)
    if expanded.startswith("~"):
        raise UsageError(
            f"{key}={value}: no user is called {expanded[1:].partition('/')[0]!r}.",
            f"A file of that name: {key}=./{value}",
        )
    # OmegaConf reads ${…} as a reference unless it is escaped, Hydra a quote.
    literal = re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", expanded)
    escaped = re.sub(r"(\\*)('|$)", _escape_quote, literal)
    return f"'{escaped}'"


def _escape_quote(found: re.Match[str]) -> str:
    return found[1] * 2 + ("\\'" if found[2] else "")


# Ranges

RANGE = re.compile(r"^\s*([^,\[\]{}'\"]+?)\.\.([^,\[\]{}'\"]+?)(?:\.\.([^,\[\]{}'\"]+?))?\s*$")


def _expand_ranges(key: str, value: str) -> str:
    if ".." not in value or value.startswith(("[", "{", "'", '"')):
        return value
    return ",".join(
        text for element in value.split(",") for text in expand_range(element, f"{key}={value}")
    )


def expand_range(element: str, shown: str | None = None) -> list[str]:
    """``0.1..0.9`` or ``0.1..0.9..0.2`` as decimal-exact strings; anything else as itself.

    Without a step, the step is one unit of the last decimal written. Raises UsageError for a range
    that is empty, descending or not made of numbers.
    """
    found = RANGE.match(element)
    if not found:
        return [element]
    shown = shown or element
    example = "A range is first..last or first..last..step, as in 0.1..0.9..0.2"
    try:
        first, last = Decimal(found[1]), Decimal(found[2])
        places = min(int(first.as_tuple().exponent), int(last.as_tuple().exponent), 0)
        step = Decimal(found[3]) if found[3] else Decimal(1).scaleb(places)
        finite = first.is_finite() and last.is_finite() and step.is_finite()
        steps = (last - first) / step if finite and step > 0 else Decimal(0)
    except (ArithmeticError, TypeError, ValueError):
        raise UsageError(f"{shown} is not a range of numbers.", example) from None
    if not (finite and step > 0):
        raise UsageError(f"{shown}: the step of a range must be positive and finite.", example)
    if last < first:
        raise UsageError(f"{shown} descends.", f"Write {found[2]}..{found[1]}")
    if steps >= LARGEST_RANGE:
        raise UsageError(
            f"{shown} makes more than {LARGEST_RANGE:,} values.",
            "Give a larger step: first..last..step",
        )
    return [_plain(first + step * index) for index in range(int(steps) + 1)]


def _plain(value: Decimal) -> str:
    """``0.30`` as 0.3 and ``1E+1`` as 10: one way to write one number."""
    return str(value.normalize() + 0)
