"""The words of a command told apart: run names, overrides, axes; ranges and paths made exact."""

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any

from swe_cli.errors import UsageError

_S = ("ratio", "rate", "base", "allocation", "pattern", "schedule", "transform", "update", "seed")
PLURALS = {f"{name}s": name for name in _S} | {"criteria": "criterion", "recoveries": "recovery"}
LARGEST_RANGE = 10_000  # values
PATHS = ("path", "results_dir", "from_run", "trajectory")
_NUMBER = r"([^,\[\]{}'\"]+?)"
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+")  # of long axes; Hydra's parser is slow
_RANGE = re.compile(rf"^\s*{_NUMBER}\.\.{_NUMBER}(?:\.\.{_NUMBER})?\s*$")


@dataclass(frozen=True)
class Tokens:
    """A command's words, told apart: run names, scalar overrides, axes (key → override strings)."""

    runs: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_tokens(words: Iterable[str]) -> Tokens:
    """Tell run names from overrides from axes; see the grammar in docs/reference/keys.md."""
    runs: list[str] = []
    overrides: list[str] = []
    axes: list[tuple[str, tuple[str, ...]]] = []
    for word in words:
        key, equals, value = word.partition("=")
        # os.path answers False where pathlib raises: a word may be longer than any file name.
        if (not equals and not word.startswith(("~", "+"))) or os.path.isdir(word):
            runs.append(word)
            continue
        values = _values(key, value, word)
        several = len(values) > 1 or key in PLURALS
        if key.lstrip("+").startswith("axes.") and (several or key[0] == "+"):
            own = f"Write {key.partition('axes.')[2]}={value}"
            raise UsageError(f"{word}: the values of an axis are given to its own key.", own)
        if not several:
            overrides.append(f"{key}={values[0]}" if equals else word)
        else:
            name = PLURALS.get(key, key)
            axes.append((name, tuple(f"{name}={value}" for value in values)))
    keys = [word.partition("=")[0] for word in overrides] + [name for name, _ in axes]
    for name, _ in axes:
        if keys.count(name) > 1:
            raise UsageError(f"{name} is given twice.", "Put all its values after one =.")
    return Tokens(tuple(runs), tuple(overrides), dict(axes))


def _values(key: str, value: str, word: str) -> list[str]:
    """The values of an override: one, or those of an axis as decimal-exact strings."""
    if "=" in word:
        if is_path_key(key):
            value_of(word)  # which refuses the home of nobody
            return [value]
        _check_signs(key, value, word)
        if ends := re.fullmatch(r"(\d*\.?\d+)-(\d*\.?\d+)", value):
            hint = f"A range is written {key}={ends[1]}..{ends[2]}"
            raise UsageError(f"{word} is neither a number nor a range.", hint)
        if key in PLURALS and value[:1] + value[-1:] == "[]":
            raise UsageError(f"{word} is one list.", f"Its values alone: {key}={value[1:-1]}")
        if ".." in value and not value.startswith(("[", "{", "'", '"')):
            numbers = [n for element in value.split(",") for n in expand_range(element, word)]
            word = f"{key}={','.join(numbers)}"
    parsed = parse_override(word)
    if not parsed.is_sweep_override():
        if key in PLURALS and value.strip() in ("", "null"):
            raise UsageError(f"{word} names no value.", f"For example: {key}=a,b,c")
        return [word.partition("=")[2]]
    if not getattr(parsed.value(), "list", None):  # range(…) and glob(…)
        hint = f"Write choices, {key}=a,b,c, or a range, {key}=0.1..0.9"
        raise UsageError(f"{word} is not a list of values.", hint)
    values = [str(element) for element in parsed.sweep_string_iterator()]
    if len(set(values)) < len(values):
        raise UsageError(f"{word} names a value twice.", "Name each value once.")
    return values


def _check_signs(key: str, value: str, word: str) -> None:
    """Refuse what is easily typed and what Hydra's grammar would name in words of its own."""
    if not key.strip("+~"):
        raise UsageError(f"{word!r} names no key.", "Overrides are key=value.")
    if key != key.strip():
        hint = f"Write {key.strip()}={value.strip()}"
        raise UsageError(f"{word!r} has spaces around its =.", hint)
    values = [element for element in value.split(",") if element.strip()]
    if len(values) <= value.count(",") > 0 and not re.search(r"""[\[{('"]""", value):
        hint = f"Write {key}={','.join(values)}" if values else f"For example: {key}=a,b,c"
        raise UsageError(f"{word} has a comma too many.", hint)


@lru_cache(maxsize=1024)
def parse_override(word: str) -> Any:
    """``word`` as Hydra reads it: once, since every cell has it. Raises UsageError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    try:
        return OverridesParser.create().parse_override(word)
    except Exception:  # Hydra's grammar answers with several kinds, in its own words
        reason = "a sign stands where none can, or a quote or bracket is left open"
        why = f"Cannot read {word!r}: {reason if '=' in word else 'it is not key=value'}."
        hint = "Overrides are key=value. Quote a value that holds signs: \"key='a (b)'\""
        raise UsageError(why, hint) from None


def closest(word: str, words: Iterable[str]) -> str | None:
    """The one of ``words`` that is most like ``word``, or None where none is close."""
    words = list(words)
    # mag means magnitude and layers means model.layers: too short to look alike.
    first, last = word.partition(".")[0], word.rpartition(".")[2]
    ends = {w: w.rpartition(".")[2] for w in words}
    short = {w: "".join(part[:1] for part in end.split("_")) for w, end in ends.items()}  # lr
    longer = [w for w in words if last and (w.startswith(word) or last in (ends[w], short[w]))]
    nearest = [w for w in longer if "." in word and w.partition(".")[0] == first]
    alike = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return next(iter([*nearest, *alike, *longer]), None)


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """`` Did you mean …?`` with a space before it, or nothing."""
    guess = closest(word, words)
    return f" Did you mean {guess}?" if guess else ""


def is_path_key(key: str) -> bool:
    """Whether a key holds a path, whose value is taken as typed."""
    last = key.lstrip("+").rpartition(".")[2]
    return not key.startswith("~") and last in PATHS


def value_of(word: str) -> Any:
    """What an override sets: a path as typed, unquoted, ``~`` expanded; else as Hydra reads it."""
    key, _, path = word.partition("=")
    if not is_path_key(key):
        return float(path) if _DECIMAL.fullmatch(path) else parse_override(word).value()
    if path in ("", "null"):
        return None
    if len(path) > 1 and path[0] == path[-1] and path[0] in "'\"":
        path = path[1:-1]
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        user = expanded[1:].partition("/")[0]
        hint = f"A file of that name: {key}=./{path}"
        raise UsageError(f"{word}: no user is called {user!r}.", hint)
    # OmegaConf reads ${…} as a reference unless it is escaped.
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", expanded)


def expand_range(element: str, shown: str | None = None) -> list[str]:
    """``0.1..0.9`` or ``0.1..0.9..0.2`` as decimal-exact strings; anything else as itself.

    Without a step, the step is one unit of the last decimal written. Raises UsageError for a range
    that is empty, descending or not made of numbers, in which it is ``shown`` as it was typed.
    """
    match = _RANGE.match(element)
    if not match:
        return [element]
    shown = shown or element
    example = "A range is first..last or first..last..step, as in 0.1..0.9..0.2"
    try:
        first, last = Decimal(match[1]), Decimal(match[2])
        places = min(int(first.as_tuple().exponent), int(last.as_tuple().exponent), 0)
        step = Decimal(match[3]) if match[3] else Decimal(1).scaleb(places)
        if step <= 0:
            raise UsageError(f"{shown}: the step of a range must be positive.", example)
        if last < first:
            raise UsageError(f"{shown} descends.", f"Write {match[2]}..{match[1]}")
        if (last - first) / step >= LARGEST_RANGE:
            reason = f"{shown} makes more than {LARGEST_RANGE:,} values."
            raise UsageError(reason, "Give a larger step: first..last..step")
        # 0.30 as 0.3 and 1E+1 as 10: one way to write one number.
        steps = range(int((last - first) / step) + 1)
        return [str((first + step * index).normalize() + 0) for index in steps]
    except (ArithmeticError, TypeError, ValueError):  # of letters, nan and inf
        raise UsageError(f"{shown} is not a range of numbers.", example) from None
