"""Components: what a node of the configuration builds, held against the signature of its target."""

import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter

from swe_cli.config.checks import Adapter, adapters, check
from swe_cli.config.words import did_you_mean, is_path_key
from swe_cli.errors import UsageError

_PACKAGE = __package__.partition(".")[0]
_FROM_RUN: Adapter = TypeAdapter(str | None)


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


def described_options(described: Mapping[str, Any]) -> dict[str, Any]:
    """The options out of what ``Component.describe`` gave, of components inside it too."""
    return {
        key: described_options(value) if isinstance(value, Mapping) else value
        for key, value in described.items()
        if key not in ("name", "source")
    }


def source_of(component: Component) -> str | None:
    """Hash of the code that a user's component is made of: every module of its package.

    None for our own, whose version is recorded. A module that is alone (an empty ``__init__.py``
    beside it says nothing), or that pip installed, is told by its own bytes.
    """
    module = component.target.__module__
    path = getattr(sys.modules.get(module), "__file__", None)
    package = module.partition(".")[0]
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
        allowed = _keyword_options(target)
    except Exception as error:  # a user's module may fail in any way while it is imported
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"{shown} names {node['_target_']}, which cannot be imported: {reason}.",
            "Your own package lies beside the folder that you give to --config-dir.",
        ) from error
    for key in node:
        if key not in {*allowed, "_target_", "from_run"}:
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


@lru_cache(maxsize=256)
def _keyword_options(target: Callable[..., Any]) -> dict[str, Adapter]:
    """Keyword-only parameter → what checks its value. Reading annotations is what takes time."""
    annotated = target.__init__ if inspect.isclass(target) else target
    hints = get_type_hints(annotated, include_extras=True)
    parameters = inspect.signature(target).parameters.values()
    keywords = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return adapters({name: hints.get(name, Any) for name in keywords})
