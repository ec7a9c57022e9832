"""A command's configuration: composed, checked, and told apart into parts and plain values."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from swe_cli.compose.check import ROOT_TYPES, Part, check_root, checked_part
from swe_cli.compose.root import ConfigRoot
from swe_cli.compose.suggest import did_you_mean
from swe_cli.compose.tree import COMMAND, choice_node, compose_tree, plain_tree, unknown_key
from swe_cli.errors import UsageError

SHIPPED = ConfigRoot()


@dataclass(frozen=True)
class Composed:
    """A checked configuration: parts by group, plain values by root key."""

    parts: dict[str, Part]
    values: dict[str, Any]

    def __getitem__(self, group: str) -> Part:
        return self.parts[group]


@lru_cache(maxsize=512)
def compose(command: str, overrides: tuple[str, ...] = (), root: ConfigRoot = SHIPPED) -> Composed:
    """Compose ``conf/<command>.yaml`` with scalar overrides and check every node.

    Raises UsageError with one sentence: an unknown key or choice, a wrong type, a bad value.
    """
    nodes, choices = compose_tree(command, overrides, root)
    nodes.pop(COMMAND, None)
    known = plain_tree(command, root).nodes
    for key in known:
        if key not in nodes:
            raise UsageError(f"swe {command} cannot do without {key}.", f"Leave ~{key} out.")
    parts, values = {}, {}
    for key, node in nodes.items():
        if key not in known:
            raise unknown_key(key, command, known, root)
        if key in ROOT_TYPES:
            values[key] = check_root(key, node)
        elif key != "experiment":
            parts[key] = checked_part(key, str(choices[key]), node)
    return Composed(parts, values)


def part(group: str, name: str, options: Mapping[str, Any], root: ConfigRoot) -> Part:
    """A part out of a stored description: the target comes from ``conf/``, never from the run."""
    return checked_part(group, name, _merged(_shipped_node(group, name, root), options))


def _merged(node: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """``options`` laid over ``node``, inside its own parts too."""
    inside = {
        key: _merged(node[key], value)
        for key, value in options.items()
        if isinstance(value, Mapping) and "_target_" in (node.get(key) or {})
    }
    return {**node, **options, **inside}


def default_part(group: str, name: str, root: ConfigRoot) -> Part:
    """A part by name with the options of its YAML."""
    return checked_part(group, name, _shipped_node(group, name, root))


def choice_options(group: str, name: str, root: ConfigRoot) -> frozenset[str]:
    """The keys that a choice of a group has in its YAML."""
    return frozenset(_shipped_node(group, name, root))


@lru_cache(maxsize=128)
def _shipped_node(group: str, name: str, root: ConfigRoot) -> dict[str, Any]:
    known = root.options(group)
    if name not in known:
        raise UsageError(
            f"{group}={name} is not known here.{did_you_mean(name, known)}",
            f"Known: {', '.join(known)}. Where it is your own, add --config-dir.",
        )
    node: dict[str, Any] = choice_node(group, name, root)
    return node
