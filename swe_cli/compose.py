"""The only file that knows Hydra and OmegaConf: override strings in, checked plain values out.

What is composed is checked against the signature of what it builds. Convention: arguments that
come from the run (a vocabulary size, a text) are positional; options from YAML are keyword-only.
"""

import difflib
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_type_hints

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, TypeAdapter, ValidationError, create_model

from swe_cli.errors import UsageError
from swe_cli.records import Scalar

PLURALS = {
    "ratios": "ratio",
    "rates": "rate",
    "criteria": "criterion",
    "allocations": "allocation",
    "patterns": "pattern",
    "recoveries": "recovery",
    "seeds": "seed",
}
ROOT_TYPES: dict[str, Any] = {
    "seed": int,
    "device": str,
    "dtype": Literal["float32", "bfloat16"],
    "threads": int | None,
    "results_dir": str | None,
    "prunable": Literal["linear", "all"],
    "base": Literal["final", "averaged", "best"],
    "ratio": float | None,
    "rate": float | None,
    "keep": Literal["rows", "models"],
    "axes": dict[str, Any],
    "command": str,
}


@dataclass(frozen=True)
class Part:
    """One choice of a group: what it builds and with which options."""

    group: str
    name: str
    target: Callable[..., Any]
    options: dict[str, Any]

    def build(self, *runtime: Any) -> Any:
        """Make the thing; ``runtime`` are the positional arguments that no YAML can know."""
        return self.target(*runtime, **self.options)

    def describe(self) -> dict[str, Any]:
        """Group name and options, never a target: what is stored and what identity is made of."""
        return {"name": self.name, **self.options}


@dataclass(frozen=True)
class Composed:
    """A checked configuration: parts by group, plain values by root key."""

    parts: dict[str, Part]
    values: dict[str, Any]

    def __getitem__(self, group: str) -> Part:
        return self.parts[group]


@dataclass(frozen=True)
class Tokens:
    """A command's words, told apart: run names, scalar overrides, axes (key → override strings)."""

    runs: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    axes: dict[str, tuple[str, ...]] = field(default_factory=dict)


# Reading the words of a command


def read_tokens(words: Iterable[str]) -> Tokens:
    """Tell run names from overrides from axes; see the grammar in the README."""
    runs, overrides, axes = [], [], {}
    for word in words:
        if ("=" not in word and not word.startswith(("~", "+"))) or Path(word).is_dir():
            runs.append(word)
            continue
        key, separator, value = word.partition("=")
        if is_path_key(key):
            overrides.append(f"{key}={_quoted_path(value)}")
            continue
        if separator:
            word = f"{key}={_expand_ranges(key, value)}"
        parsed = _parse(word)
        name = PLURALS.get(key, key)
        if parsed.is_sweep_override():
            if not parsed.is_choice_sweep():
                raise UsageError(f"{word}: write choices a,b,c or a range 0.1..0.9.")
            values = [str(element) for element in parsed.sweep_string_iterator()]
            if len(set(values)) < len(values):
                raise UsageError(f"{word} names a value twice.")
            axes[name] = tuple(f"{name}={value}" for value in values)
        elif key in PLURALS:
            axes[name] = (f"{name}={word.partition('=')[2]}",)
        else:
            overrides.append(word)
    return Tokens(tuple(runs), tuple(overrides), axes)


def is_path_key(key: str) -> bool:
    """Whether a key holds a path, whose value is taken as typed."""
    last = key.lstrip("+").rpartition(".")[2]
    return last in ("path", "results_dir", "from_run")


def _quoted_path(value: str) -> str:
    if value in ("null", ""):
        return value or "null"
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    expanded = str(Path(value).expanduser())
    escaped = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", expanded)
    return f"'{escaped}'"


def _parse(word: str) -> Any:
    try:
        return OverridesParser.create().parse_override(word)
    except (OverrideParseException, HydraException) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"Cannot read {word!r}: {reason}.", "Overrides are key=value.") from None


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
    try:
        first, last = Decimal(found[1]), Decimal(found[2])
        places = min(int(first.as_tuple().exponent), int(last.as_tuple().exponent), 0)
        step = Decimal(found[3]) if found[3] else Decimal(1).scaleb(places)
    except (InvalidOperation, TypeError, ValueError):
        raise UsageError(f"{shown}: a range is numbers, as in 0.1..0.9 or 0.1..0.9..0.2.") from None
    if not (first.is_finite() and last.is_finite() and step.is_finite() and step > 0):
        raise UsageError(f"{shown}: the step of a range must be positive and finite.")
    if last < first:
        raise UsageError(f"{shown} descends.", f"Write {last}..{first}.")
    count = int((last - first) / step) + 1
    if count > 10_000:
        raise UsageError(f"{shown} makes {count} values.", "Give a larger step: a..b..step.")
    return [str((first + index * step).normalize() + 0) for index in range(count)]


# Composing


@dataclass(frozen=True)
class ConfigRoot:
    """Where configuration is found: the shipped ``conf/`` and, first, the user's own folder."""

    extra: Path | None = None

    def install(self) -> None:
        """Let the user's own package, beside the folder, be imported."""
        if self.extra is None:
            return
        if not self.extra.is_dir():
            raise UsageError(f"--config-dir {self.extra} is not a folder.")
        parent = str(self.extra.resolve().parent)
        if parent not in sys.path:
            sys.path.insert(0, parent)

    def options(self, group: str) -> list[str]:
        """Names one can choose in a group, sorted."""
        folders = [shipped_conf() / group] + ([self.extra / group] if self.extra else [])
        return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})


def shipped_conf() -> Path:
    """``conf/`` inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


@lru_cache(maxsize=512)
def compose(
    command: str, overrides: tuple[str, ...] = (), root: ConfigRoot = ConfigRoot()
) -> Composed:
    """Compose ``conf/<command>.yaml`` with scalar overrides and check every node.

    Raises UsageError with one sentence: an unknown key or choice, a wrong type, a bad value.
    """
    tree, choices = _compose_tree(command, overrides, root)
    parts, values = {}, {}
    for key, node in tree.items():
        if key in ROOT_TYPES:
            values[key] = _check_root(key, node)
        elif isinstance(node, dict) and "_target_" in node:
            parts[key] = _part(key, choices[key], node)
        elif key != "experiment":
            raise UsageError(f"{key} is not a key of swe {command}.{_did_you_mean(key, tree)}")
    intended = values.pop("command", command)
    if intended != command:
        name = choices.get("experiment")
        raise UsageError(
            f"experiment={name} is meant for swe {intended}.",
            f"Type: swe {intended} experiment={name}",
        )
    return Composed(parts, values)


def part(group: str, name: str, options: Mapping[str, Any], root: ConfigRoot) -> Part:
    """A part out of a stored description: the target comes from ``conf/``, never from the run."""
    return _part(group, name, {**_shipped_node(group, name, root), **options})


def default_part(group: str, name: str, root: ConfigRoot) -> Part:
    """A part by name with the options of its YAML."""
    return _part(group, name, _shipped_node(group, name, root))


@lru_cache(maxsize=128)
def _shipped_node(group: str, name: str, root: ConfigRoot) -> dict[str, Any]:
    known = root.options(group)
    if name not in known:
        raise UsageError(
            f"{group}={name} is not known here.{_did_you_mean(name, known)}",
            f"Known: {', '.join(known)}.",
        )
    tree, _ = _compose_tree(f"{group}/{name}", (), root)
    for key in group.split("/"):
        tree = tree[key]
    return tree


def _compose_tree(
    config: str, overrides: tuple[str, ...], root: ConfigRoot
) -> tuple[dict[str, Any], dict[str, str]]:
    root.install()
    added = (f"hydra.searchpath=['file://{root.extra.resolve()}']",) if root.extra else ()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(shipped_conf()), version_base="1.3"):
            composed = hydra_compose(config, [*added, *overrides], return_hydra_config=True)
            choices = dict(composed.hydra.runtime.choices)
            OmegaConf.set_struct(composed, False)
            composed.pop("hydra")
            tree = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except MissingConfigException as error:
        raise _unknown_choice(error, overrides, root) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise _unknown_key(error, config, overrides, root) from None
    assert isinstance(tree, dict)
    return {str(key): node for key, node in tree.items()}, choices


def _unknown_choice(
    error: MissingConfigException, overrides: Sequence[str], root: ConfigRoot
) -> UsageError:
    for word in overrides:
        group, _, name = word.lstrip("+").partition("=")
        known = root.options(group)
        if known and name not in known:
            return UsageError(
                f"{group}={name} is not known.{_did_you_mean(name, known)}",
                f"Choose one of: {', '.join(known)}.",
            )
    return UsageError(str(error).splitlines()[0])


def _unknown_key(
    error: Exception, config: str, overrides: tuple[str, ...], root: ConfigRoot
) -> UsageError:
    text = str(error).strip()
    missing = getattr(error, "full_key", None) if "Missing mandatory value" in text else None
    if missing:
        return UsageError(f"{missing} is needed.", f"Add {missing}=…")
    quoted = re.search(r"(?:override|group) '?([\w.@/]+)'?", text)
    key = quoted[1] if quoted else None
    if key is None or not overrides:
        return UsageError(text.splitlines()[0])
    choices = tuple(w for w in overrides if root.options(w.lstrip("+").partition("=")[0]))
    choices = tuple(w for w in choices if w.lstrip("+").partition("=")[0] != key)
    known = _known_keys(_compose_tree(config, choices, root)[0]) if choices != overrides else []
    return UsageError(
        f"{key} is not a key of swe {config}.{_did_you_mean(key, known)}",
        None if _did_you_mean(key, known) else f"See what there is: swe {config} --help",
    )


def _known_keys(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, node in tree.items():
        keys.append(f"{prefix}{key}")
        if isinstance(node, Mapping):
            keys += _known_keys(node, f"{prefix}{key}.")
    return [key for key in keys if "_target_" not in key]


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, [str(k) for k in known], n=1, cutoff=0.6)
    return f" Did you mean {close[0]}?" if close else ""


# Checking


def _part(group: str, name: str, node: Mapping[str, Any]) -> Part:
    target = _resolve(str(node["_target_"]), f"{group}={name}")
    given = {key: value for key, value in node.items() if key != "_target_"}
    return Part(group, name, target, _check_options(group, target, given))


def _resolve(path: str, shown: str) -> Callable[..., Any]:
    module, _, attribute = path.rpartition(".")
    try:
        target: Callable[..., Any] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"{shown} names {path}, which cannot be imported: {error}.") from None
    return target


def _check_options(
    group: str, target: Callable[..., Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    wanted = [
        parameter.name
        for parameter in inspect.signature(target).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    for key in given:
        if key not in wanted:
            raise UsageError(
                f"{group}.{key} is not a key here.{_did_you_mean(key, wanted)}",
                f"Keys of {group}: {', '.join(wanted) or 'none'}.",
            )
    strict = ConfigDict(strict=True, protected_namespaces=())
    fields: dict[str, Any] = {name: (hints[name], ...) for name in wanted}
    model = create_model("Options", __config__=strict, **fields)
    try:
        checked = model(**given)
    except ValidationError as error:
        raise _type_error(f"{group}.", error, given) from None
    options = {name: getattr(checked, name) for name in wanted}
    for key, value in options.items():
        _refuse_non_finite(f"{group}.{key}", value)
    return options


def _check_root(key: str, value: Any) -> Any:
    try:
        checked = TypeAdapter(ROOT_TYPES[key]).validate_python(value, strict=True)
    except ValidationError as error:
        raise _type_error("", error, {key: value}, key) from None
    _refuse_non_finite(key, checked)
    if key == "ratio" and checked is not None and not 0.0 <= checked < 1.0:
        raise UsageError(f"ratio={checked:g} is not in [0, 1): it is the fraction to cut.")
    if key == "rate" and checked is not None and checked < 0.0:
        raise UsageError(f"rate={checked:g} must not be negative.")
    return checked


def _refuse_non_finite(key: str, value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{key}={value} is not a finite number.")


def _type_error(
    prefix: str, error: ValidationError, given: Mapping[str, Any], root_key: str | None = None
) -> UsageError:
    first = error.errors()[0]
    name = root_key or str(first["loc"][0])
    if first["type"] == "missing":
        return UsageError(f"{prefix}{name} is needed.", f"Add {prefix}{name}=…")
    expected = first["msg"].removeprefix("Input should be ").replace("a valid ", "a ")
    shown: Scalar = given.get(name)
    return UsageError(f"{prefix}{name}={shown} is wrong: it should be {expected}.")
