"""Components: what a node of the configuration builds, held against the signature of its target.

A bound is written where the option is, ``Annotated[int, Field(ge=1)]``. In an error its ``title``
follows the sentence as a reason, its ``description`` is what to type next.
"""

import hashlib
import inspect
import json
import math
import re
import sys
import sysconfig
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic import PydanticInvalidForJsonSchema as NoSchema
from pydantic import PydanticSchemaGenerationError as NotChecked
from typing_extensions import TypedDict  # which pydantic asks for, before Python 3.12

from swe_cli.config.root import shipped_conf
from swe_cli.config.words import did_you_mean, is_path_key
from swe_cli.controls import ASKED
from swe_cli.errors import UsageError

_PACKAGE = __package__.partition(".")[0]
Adapter = TypeAdapter[Any]
Plain = str | int | float | bool | None
_FROM_RUN: Adapter = TypeAdapter(str | None)
USUAL = "_with_"  # key of a YAML: what goes with its choice
MISSING = "???"  # OmegaConf's sign for a value that the user must give
EXAMPLES = {"integer": "10", "number": "0.1", "boolean": "true", "string": "TEXT"}
TYPES = (("a valid ", "a "), ("a integer", "an integer"), ("a boolean", "true or false"))
RATIO = Field(ge=0, lt=1, title="it is the fraction to cut", description="For example: ratio=0.5")
SLICES = "slices with more zeros than that are cut whole"
FUSE = Field(ge=0, lt=1, title=SLICES, description="The paper's: fuse=0.75")


class Declaration(TypedDict):
    """A comparison that a sweep declares before it runs. Lines are told by column → value.

    ``line`` is compared with ``primary`` and with each of ``secondary``, which are as ``line`` but
    for what they name, at ``ratios``, by the column ``of``.
    """

    line: dict[str, Plain]
    primary: dict[str, Plain]
    secondary: list[dict[str, Plain]]
    ratios: list[float]
    of: Literal["loss_calibrated_nats", "loss_nats"]
    __pydantic_config__ = {"extra": "forbid"}  # type: ignore[misc]  # noqa: RUF012


class Energy(TypedDict):
    """``watts``: what the machine draws, where no counter tells: energies are then marked as
    estimated. ``country``: ISO code of whose power it is, for kg CO₂e.
    """

    watts: Annotated[float, Field(gt=0, description="For example: energy.watts=65")] | None
    country: str | None
    __pydantic_config__ = {"extra": "forbid"}  # type: ignore[misc]  # noqa: RUF012


@dataclass(kw_only=True)
class Settings:
    """The plain keys of the top level: every one that some command has."""

    seed: int
    device: str
    dtype: Literal["float32", "bfloat16"]
    threads: Annotated[int, Field(ge=1, description="All of them: threads=null")] | None
    results_dir: str | None
    trajectory: str | None
    prunable: Literal["linear", "all"]
    roles: str
    base: Literal["final", "averaged", "best", "latest", "ema"]
    controls: list[Literal[ASKED]]  # type: ignore[valid-type]
    ratio: Annotated[float, RATIO] | None
    rate: Annotated[float, Field(ge=0, description="For example: rate=1.575")] | None
    fuse: Annotated[float, FUSE] | None
    quantize: Literal["none", "int8"]
    keep: Literal["rows", "models"]
    costs: Literal["counted", "measured"]
    energy: Energy
    compare: Declaration | None
    axes: dict[str, Any]


@dataclass(frozen=True)
class Component:
    """One choice of a group: what it builds and with which options.

    An option may be a component itself (the towers of a model). ``from_run`` names the run whose
    weights a component starts from; whoever builds it sees to that.
    """

    group: str
    name: str
    target: Callable[..., Any]
    options: dict[str, Any] = field(hash=False)
    from_run: str | None = None

    def build(self, *runtime: Any) -> Any:
        """Make the thing; ``runtime`` are the positional arguments that no YAML can know."""
        return self.target(*runtime, **self.options)

    __call__ = build

    @cached_property
    def instance(self) -> Any:
        """The thing itself, where it needs nothing of a run: built once."""
        return self.build()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "instance"}

    def paths(self) -> dict[str, str]:
        """Dotted key → value of every option that holds a path, of components inside it too."""
        paths = {"from_run": self.from_run} if self.from_run else {}
        for key, value in self.options.items():
            if isinstance(value, Component):
                paths |= {f"{key}.{inner}": path for inner, path in value.paths().items()}
            elif is_path_key(key) and value is not None:
                paths[key] = value
        return paths

    def describe(self) -> dict[str, Any]:
        """Group name and options, never a target: what is stored and what identity is made of.

        What a user's own package builds is told by the package's content too: after an edit, its
        old numbers are not its numbers.
        """
        told = {"source": source_of(self), "from_run": self.from_run}
        described: dict[str, Any] = {"name": self.name, **{k: v for k, v in told.items() if v}}
        for key, value in self.options.items():
            described[key] = value
            if isinstance(value, Component):
                described[key] = value.describe()
                del described[key]["name"]  # of the whole
        return described


def nothing() -> None:
    """What the choice ``none`` of a group builds."""


def source_of(component: Component) -> str | None:
    """Hash of the code that a user's component is made of: every module of its package.

    None for our own, whose version is recorded. A module that is alone (an empty ``__init__.py``
    beside it says nothing), or that pip installed, is told by its own bytes. Of a statistic, which
    identities hold by name, a user's options count too.
    """
    module = sys.modules.get(component.target.__module__)
    source, options = None if module is None else _source_of(module), component.options
    ours = _is_shipped(component.group, component.name)
    if component.group != "statistic" or ours or not options:
        return source
    return hashlib.sha256(repr((source, sorted(options.items()))).encode()).hexdigest()[:16]


@cache
def _is_shipped(group: str, name: str) -> bool:
    return (shipped_conf() / group / f"{name}.yaml").is_file()


@cache
def _source_of(module: ModuleType) -> str | None:
    """Taken once: a file that is edited meanwhile is not the code that runs."""
    path, package = getattr(module, "__file__", None), module.__name__.partition(".")[0]
    if package == _PACKAGE or path is None:
        return None
    files: list[tuple[str, bytes]] = []
    if not Path(path).is_relative_to(sysconfig.get_path("purelib")):
        for folder in getattr(sys.modules[package], "__path__", ()):
            for file in Path(folder).rglob("*.py"):
                if content := file.read_bytes().strip():
                    files.append((file.relative_to(folder).as_posix(), content))
    content = repr(sorted(files)).encode() if len(files) > 1 else Path(path).read_bytes()
    return hashlib.sha256(content).hexdigest()[:16]


def checked_component(group: str, name: str, node: Any) -> Component:
    """A node with a ``_target_`` as a component. Raises UsageError for options that do not fit."""
    shown = f"{group}={name}" if name else group
    if not isinstance(node, Mapping) or "_target_" not in node:
        hint = "Give it a line _target_: package.module.Name"
        raise UsageError(f"{group}/{name}.yaml does not say what it builds.", hint)
    module, _, attribute = str(node["_target_"]).rpartition(".")
    try:
        target: Callable[..., Any] = getattr(import_module(module), attribute)
        allowed = keyword_options(target)
    except Exception as error:  # a user's module may fail in any way while it is imported
        reason = " ".join(str(error).split()) or type(error).__name__
        why = f"{shown} names {node['_target_']}, which cannot be imported: {reason}."
        hint = "Your own package lies beside the folder that you give to --config-dir."
        raise UsageError(why, hint) from error
    known = {*allowed, "_target_", "from_run", USUAL}
    for key in node:
        if key not in known:
            keys = f"Keys of {shown} (keyword-only options): {', '.join(allowed) or 'none'}."
            guess = did_you_mean(key, allowed)
            raise UsageError(f"{group}.{key} is not a key of {shown}.{guess}", keys)
    options: dict[str, Any] = {}
    for key, adapter in allowed.items():
        if key not in node:
            hint = f"Add +{group}.{key}=…, or write it in {shown.replace('=', '/')}.yaml."
            raise UsageError(f"{group}.{key} is needed by {shown}.", hint)
        if isinstance(node[key], Mapping) and "_target_" in node[key]:
            options[key] = checked_component(f"{group}.{key}", "", node[key])
        else:
            options[key] = check(f"{group}.{key}", adapter, node[key])
    from_run = check(f"{group}.from_run", _FROM_RUN, node.get("from_run"))
    return Component(group, name, target, options, from_run)


# Values held against annotations


@lru_cache(maxsize=256)
def keyword_options(target: Callable[..., Any]) -> dict[str, Adapter]:
    """Keyword-only parameter → what checks its value. Reading annotations is what takes time."""
    options: dict[str, Adapter] = {}
    for name, parameter in inspect.signature(target, eval_str=True).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            hint = Any if parameter.annotation is parameter.empty else parameter.annotation
            try:
                options[name] = TypeAdapter(hint)
            except NotChecked:  # a class of the user's own, whose code checks it
                options[name] = TypeAdapter(Any)
    return options


def check(key: str, adapter: Adapter, value: Any) -> Any:
    """``value`` of the right type and within bounds, ints as floats; else UsageError of ``key``."""
    if value == MISSING:
        raise UsageError(f"{key} is needed.", f"Add {key}=…")
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{key}={value} is not a finite number.", f"Write {key}=0.1")
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError as error:
        raise _refusal(key, adapter, value, error) from None


def as_typed(value: Any) -> str:
    """A value as one types it."""
    if isinstance(value, list):
        return f"[{','.join(map(as_typed, value))}]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _refusal(key: str, adapter: Adapter, value: Any, error: ValidationError) -> UsageError:
    problems, choices = error.errors(), _alternatives(adapter)
    types = {one["type"] for one in problems}
    bounded = next((one for one in choices if _bound(one)), None)
    if bounded and any(kind.startswith(("greater_", "less_")) for kind in types):
        reason, hint = bounded.get("title"), bounded.get("description")
        others = [as_typed(one.get("const")) for one in choices if one is not bounded]
        tail = f": {reason}" if reason else f", or {others[0]}" if others and not hint else ""
        return UsageError(f"{key}={as_typed(value)} {_bound(bounded)}{tail}.", hint)
    for one in problems:
        inner = ".".join(map(str, (key, *one["loc"])))
        if one["type"] == "missing":
            return UsageError(f"{inner} is needed.", f"Write {inner}, as {key} has others.")
        if one["type"] == "extra_forbidden":
            return UsageError(f"{inner} is not a key of {key}.", f"Take {inner} out.")
    if isinstance(value, dict) and problems[0]["loc"]:
        key, value, problems = inner, problems[-1]["input"], problems[-1:]
    messages = [one["msg"].removeprefix("Input should be ") for one in problems]
    expected = " or ".join(dict.fromkeys(messages))
    for theirs, ours in TYPES:
        expected = expected.replace(theirs, ours)
    if isinstance(value, str) and types & {"int_type", "float_type"}:
        with suppress(ValueError):
            float(value)
            quoted = f'{key}="{value}" is quoted, so it is text: it should be {expected}.'
            return UsageError(quoted, f"Write {key}={value}")
    free = [choice.get("type") for choice in choices if not choice.keys() & {"enum", "const"}]
    example = next((f"Write {key}={EXAMPLES[kind]}" for kind in free if kind in EXAMPLES), None)
    if free == ["array"] and not isinstance(value, list):
        example = f"Write {key}=[{as_typed(value)}]"
    guess = did_you_mean(as_typed(value).strip("[]"), re.findall(r"'(\w+)'", expected))
    return UsageError(f"{key}={as_typed(value)} is wrong: it should be {expected}.{guess}", example)


def _alternatives(adapter: Adapter) -> list[dict[str, Any]]:
    """JSON schemas of what a value may be."""
    try:
        schema = adapter.json_schema()
    except NoSchema:  # something to be called, for one
        return []
    alternatives: list[dict[str, Any]] = schema.get("anyOf", [schema])
    return alternatives


def _bound(schema: Mapping[str, Any]) -> str | None:
    """What a JSON schema bounds from below, said of a value that is beyond."""
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None:
        return None
    if high is not None:
        opening, closing = "[" if "minimum" in schema else "(", "]" if "maximum" in schema else ")"
        return f"is not in {opening}{low:g}, {high:g}{closing}"
    if "minimum" in schema:
        return f"must be at least {low:g}" if low else "must not be negative"
    return f"must be greater than {low:g}" if low else "must be positive"
