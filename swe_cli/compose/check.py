"""Nodes of a composed configuration held against the signatures of what they build."""

import hashlib
import inspect
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from swe_cli.compose.suggest import did_you_mean
from swe_cli.compose.words import is_path_key
from swe_cli.errors import UsageError

ROOT_TYPES: dict[str, Any] = {
    "seed": int,
    "device": str,
    "dtype": Literal["float32", "bfloat16"],
    "threads": int | None,
    "results_dir": str | None,
    "prunable": Literal["linear", "all"],
    "roles": str,
    "base": Literal["final", "averaged", "best"],
    "ratio": float | None,
    "rate": float | None,
    "fuse": float | None,
    "keep": Literal["rows", "models"],
    "axes": dict[str, Any],
    "command": str,
}
TARGET = '"_target_"'
MISSING = "???"  # OmegaConf's sign for a value that the user must give


@dataclass(frozen=True)
class Part:
    """One choice of a group: what it builds and with which options.

    An option may be a part itself (the towers of a model). ``from_run`` names the run whose weights
    a part starts from; whoever builds it sees to that.
    """

    group: str
    name: str
    target: Callable[..., Any]
    options: dict[str, Any]
    from_run: str | None = None

    def build(self, *runtime: Any) -> Any:
        """Make the thing; ``runtime`` are the positional arguments that no YAML can know."""
        return self.target(*runtime, **self.options)

    __call__ = build

    def paths(self) -> dict[str, str]:
        """Dotted key → value of every option that holds a path, those of parts inside it too."""
        found = {"from_run": self.from_run} if self.from_run else {}
        for key, value in self.options.items():
            if isinstance(value, Part):
                found |= {f"{key}.{inner}": path for inner, path in value.paths().items()}
            elif is_path_key(key) and value is not None:
                found[key] = value
        return found

    def describe(self) -> dict[str, Any]:
        """Group name and options, never a target: what is stored and what identity is made of.

        What a user's own module builds is told by the module's content too: after an edit, its
        old numbers are not its numbers.
        """
        source = _source_hash(self.target.__module__)
        return {
            "name": self.name,
            **({"source": source} if source else {}),
            **({"from_run": self.from_run} if self.from_run else {}),
            **{key: _described(value) for key, value in self.options.items()},
        }


def _described(value: Any) -> Any:
    if not isinstance(value, Part):
        return value
    described = value.describe()
    del described["name"]  # of the whole
    return described


def described_options(described: Mapping[str, Any]) -> dict[str, Any]:
    """The options out of what ``Part.describe`` gave, those of parts inside it too."""
    return {
        key: described_options(value) if isinstance(value, Mapping) else value
        for key, value in described.items()
        if key not in ("name", "source")
    }


def _source_hash(module: str) -> str | None:
    """Hash of a module outside this package; None for our own, whose version is recorded."""
    path = getattr(sys.modules.get(module), "__file__", None)
    if module.partition(".")[0] == __package__.partition(".")[0] or path is None:
        return None
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def checked_part(group: str, name: str, node: Any) -> Part:
    """A node with a ``_target_`` as a part. Raises UsageError for options that do not fit."""
    text = json.dumps(node)
    if text.count(TARGET) == text.count(f'{TARGET}: "{__package__.partition(".")[0]}.'):
        return _our_part(group, name, text)
    return _check_part(group, name, node)  # a user's own module may change while we look


@lru_cache(maxsize=1024)
def _our_part(group: str, name: str, text: str) -> Part:
    """A sweep asks for the same few parts in every cell."""
    return _check_part(group, name, json.loads(text))


def _check_part(group: str, name: str, node: Any) -> Part:
    shown = f"{group}={name}" if name else group
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise UsageError(
            f"{group}/{name}.yaml does not say what it builds.",
            "Give it a line _target_: package.module.Name",
        )
    target = _resolve(str(node["_target_"]), shown)
    given = {key: value for key, value in node.items() if key not in ("_target_", "from_run")}
    from_run = _check(f"{group}.from_run", str | None, node.get("from_run"))
    return Part(group, name, target, _check_options(group, shown, target, given), from_run)


def check_root(key: str, value: Any) -> Any:
    """A plain value of the top level, in the type of its key."""
    checked = _check(key, ROOT_TYPES[key], value)
    if key == "ratio" and checked is not None and not 0.0 <= checked < 1.0:
        raise UsageError(
            f"ratio={checked:g} is not in [0, 1): it is the fraction to cut.",
            "For example: ratio=0.5",
        )
    if key == "rate" and checked is not None and checked < 0.0:
        raise UsageError(f"rate={checked:g} must not be negative.", "For example: rate=1.575")
    if key == "fuse" and checked is not None and not 0.0 <= checked < 1.0:
        raise UsageError(
            f"fuse={checked:g} is not in [0, 1): slices with more zeros than that are cut whole.",
            "The paper's: fuse=0.75",
        )
    if key == "threads" and checked is not None and checked < 1:
        raise UsageError(f"threads={checked} must be at least 1.", "All of them: threads=null")
    return checked


def _resolve(path: str, shown: str) -> Callable[..., Any]:
    module, _, attribute = path.rpartition(".")
    try:
        target: Callable[..., Any] = getattr(import_module(module), attribute)
    except Exception as error:  # a user's module may fail in any way while it is imported
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"{shown} names {path}, which cannot be imported: {reason}.",
            "Your own package lies beside the folder that you give to --config-dir.",
        ) from error
    return target


def _check_options(
    group: str, shown: str, target: Callable[..., Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    hints = _hints(target, shown)
    parameters = inspect.signature(target).parameters
    wanted = [p.name for p in parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    for key in given:
        if key in parameters and key not in wanted:
            raise UsageError(
                f"{group}.{key} of {shown} cannot be set: options are keyword-only.",
                "Write @dataclass(frozen=True, kw_only=True), or a * before the option.",
            )
        if key not in wanted:
            raise UsageError(
                f"{group}.{key} is not a key of {shown}.{did_you_mean(key, wanted)}",
                f"Keys of {shown}: {', '.join(wanted) or 'none'}.",
            )
    for key in wanted:
        if given.get(key) == MISSING:
            raise UsageError(f"{group}.{key} is needed.", f"Add {group}.{key}=…")
        if key not in given:
            raise UsageError(
                f"{group}.{key} is needed by {shown}.",
                f"Add +{group}.{key}=…, or write it in {shown.replace('=', '/')}.yaml.",
            )
    return {key: _option(f"{group}.{key}", hints.get(key, Any), given[key]) for key in wanted}


def _option(key: str, wanted: Any, value: Any) -> Any:
    if isinstance(value, Mapping) and "_target_" in value:
        return checked_part(key, "", value)
    return _check(key, wanted, value)


def _hints(target: Callable[..., Any], shown: str) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError) as error:
        raise UsageError(f"The annotations of {shown} cannot be read: {error}.") from error


def _check(key: str, wanted: Any, value: Any) -> Any:
    try:
        checked = TypeAdapter(wanted).validate_python(value, strict=True)
    except PydanticSchemaGenerationError:  # a class of the user's own: their code checks it
        return value
    except ValidationError as error:
        expected = " or ".join(dict.fromkeys(_expected(e["msg"]) for e in error.errors()))
        raise UsageError(
            f"{key}={_shown(value)} is wrong: it should be {expected}.",
            f"Write {key}={_example(wanted)}" if _example(wanted) else None,
        ) from None
    if isinstance(checked, float) and not math.isfinite(checked):
        raise UsageError(f"{key}={checked} is not a finite number.", f"Write {key}=0.1")
    return checked


def _expected(message: str) -> str:
    """Pydantic's words for a type, after "it should be"."""
    plain = message.removeprefix("Input should be ").replace("a valid ", "a ")
    return plain.replace("a integer", "an integer").replace("a boolean", "true or false")


def _shown(value: Any) -> str:
    """A value as one types it."""
    plain = {None: "null", True: "true", False: "false"}
    return plain[value] if value is None or isinstance(value, bool) else str(value)


def _example(wanted: Any) -> str | None:
    """What such a value looks like; None where the expectation already lists the choices."""
    kinds = {int: "10", float: "0.1", bool: "true", str: "TEXT"}
    union = get_origin(wanted) in (Union, UnionType)
    for kind in get_args(wanted) if union else (wanted,):
        if isinstance(kind, type) and kind in kinds:
            return kinds[kind]
    return None
