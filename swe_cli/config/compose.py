"""A command's configuration: YAMLs and overrides put together by Hydra, then checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import yaml

from swe_cli.config.checks import SETTINGS, check
from swe_cli.config.components import Component, checked_component
from swe_cli.config.root import ConfigRoot, shipped_conf
from swe_cli.config.words import closest, did_you_mean, value_of
from swe_cli.errors import UsageError

TRAINING_COMMANDS = ("train", "prune", "sweep", "evaluate")  # whose keys one mixes up
SHIPPED = ConfigRoot()

Nodes = dict[str, Any]


@dataclass(frozen=True)
class Composed:
    """A checked configuration: components by group, plain values by key of the top level."""

    components: dict[str, Component]
    values: dict[str, Any]

    def __getitem__(self, group: str) -> Component:
        return self.components[group]


def compose(command: str, overrides: tuple[str, ...] = (), root: ConfigRoot = SHIPPED) -> Composed:
    """Compose ``conf/<command>.yaml`` with scalar overrides and check every node.

    Raises UsageError with one sentence: an unknown key or choice, a wrong type, a bad value.
    """
    plain = _load(command, (), root)
    for word in overrides:
        _check_word(word, command, plain, root)
    # Hydra takes choices before values, whatever the order they are typed in.
    choices = tuple(word for word in overrides if _key(word) in plain.names)
    try:
        nodes, names, _ = _load(command, choices, root)
        for word in overrides:
            if word not in choices:
                nodes = _overridden(nodes, word, command, root)
        nodes = _resolved(nodes)
    except UsageError:
        raise
    except Exception as error:  # Hydra and OmegaConf raise their own, OSError, ValueError, YAML's
        raise _explained(error, command, overrides, root) from error
    settings, components = {}, {}
    for key, node in nodes.items():
        if key not in plain.nodes:
            raise _unknown_key(key, command, plain.nodes, root)
        if key in SETTINGS:
            settings[key] = check(key, SETTINGS[key], node)
        else:
            components[key] = checked_component(key, str(names[key]), node)
    return Composed(components, settings)


def component(
    group: str, name: str, root: ConfigRoot, options: Mapping[str, Any] | None = None
) -> Component:
    """A choice of a group, with ``options`` (of a stored description) laid over those of its YAML.

    The target comes from the YAML, never from what is stored.
    """
    return checked_component(group, name, _merged(_choice_node(group, name, root), options or {}))


def choice_options(group: str, name: str, root: ConfigRoot) -> frozenset[str]:
    """The keys that a choice of a group has in its YAML."""
    return frozenset(_choice_node(group, name, root))


def _choice_node(group: str, name: str, root: ConfigRoot) -> Nodes:
    """The YAML of one choice, whoever's it is. A value that is still to be given is ``???``."""
    try:
        node: Nodes = _resolved(_load(None, (f"+{group}={name}",), root).nodes)[group]
    except UsageError:
        raise
    except Exception as error:
        choices = root.options(group)
        if name in choices:
            raise _broken(group, name, error) from error
        raise UsageError(
            f"{group}={name} is not known here.{did_you_mean(name, choices)}",
            f"Known: {', '.join(choices)}. Where it is your own, add --config-dir.",
        ) from error
    return node


def _merged(node: Nodes, options: Mapping[str, Any]) -> Nodes:
    """``options`` laid over ``node``, inside its own components too."""
    inside = {
        key: _merged(node[key], value)
        for key, value in options.items()
        if isinstance(value, Mapping) and "_target_" in (node.get(key) or {})
    }
    return {**node, **options, **inside}


# Hydra


class Tree(NamedTuple):
    """What YAMLs say, references unresolved; the choice of each group; the command it is for."""

    nodes: Nodes
    names: dict[str, str | None]
    command: str | None


@lru_cache(maxsize=256)
def _load(command: str | None, choices: tuple[str, ...], root: ConfigRoot) -> Tree:
    """The YAMLs of ``command`` by Hydra, which takes a tenth of a second: cells share them."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    root.install()
    added = [f"hydra.searchpath=['file://{root.extra.resolve()}']"] if root.extra else []
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(shipped_conf()), version_base="1.3"):
        config = hydra_compose(command, [*added, *choices], return_hydra_config=True)
    nodes: Any = OmegaConf.to_container(config)
    return Tree(nodes, nodes.pop("hydra")["runtime"]["choices"], nodes.pop("command", None))


def _overridden(nodes: Nodes, word: str, command: str, root: ConfigRoot) -> Nodes:
    """``nodes``, which stay, with one value set, added (``+``) or taken out (``~``)."""
    key, adds = _key(word), word.startswith("+")
    *outer, last = key.split(".")
    exists = _has(nodes, key)
    if not exists and not (adds and outer and outer[0] in nodes):
        raise _unknown_key(key.partition(".")[0] if adds else key, command, nodes, root)
    if exists and adds and not word.startswith("++"):
        raise UsageError(f"{key} is there already.", f"Write {word.lstrip('+')}")
    changed = inner = dict(nodes)
    for name in outer:
        node = inner.get(name)
        inner[name] = dict(node) if isinstance(node, dict) else {}
        inner = inner[name]
    if word.startswith("~"):
        del inner[last]
        return changed
    old, value = inner.get(last), value_of(word)
    if outer and isinstance(value, dict) and isinstance(old, dict):
        value = {**old, **value}
    inner[last] = value
    return changed


def _has(nodes: Any, key: str) -> bool:
    first, _, rest = key.partition(".")
    there = isinstance(nodes, Mapping) and first in nodes
    return there and (not rest or _has(nodes[first], rest))


def _resolved(nodes: Nodes) -> Nodes:
    """Plain values with every reference (``${…}``) looked up."""
    if "${" not in str(nodes):
        return nodes
    from omegaconf import OmegaConf

    resolved: Any = OmegaConf.to_container(OmegaConf.create(nodes), resolve=True)
    return dict(resolved)


# Errors


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _check_word(word: str, command: str, plain: Tree, root: ConfigRoot) -> None:
    key = _key(word)
    if key.replace("/", ".").split(".")[0] == "hydra":
        raise UsageError(f"{word}: swe keeps Hydra's own settings to itself.", "Leave it out.")
    if any(name.startswith("_") for name in key.split(".")):
        raise UsageError(f"{key} is not for the command line.", "It belongs in a YAML.")
    if word.startswith("~") and key in plain.nodes:
        raise UsageError(f"swe {command} cannot do without {key}.", f"Leave ~{key} out.")
    if word.startswith("experiment=") and command in TRAINING_COMMANDS:
        try:
            intended = _load("sweep", (word,), root).command or command  # sweep has all groups
        except Exception:
            return  # the command itself meets it next and says what is wrong
        if intended != command:
            hint = f"Type: swe {intended} {word}"
            raise UsageError(f"{word} is meant for swe {intended}.", hint)


def _explained(
    error: Exception, command: str, overrides: tuple[str, ...], root: ConfigRoot
) -> UsageError:
    """One sentence about the first override that Hydra or OmegaConf cannot take."""
    for word in overrides:
        key, value = _key(word), word.partition("=")[2]
        if key == getattr(error, "full_key", None):
            reason = f"{word} cannot be used: {_first_line(error)}"
            return UsageError(reason, f"Write {key}=VALUE")
        choices = root.options(key)
        if choices and word.startswith("+"):
            return UsageError(f"{key} is there already.", f"Write {word.lstrip('+')}")
        if choices and value not in choices:
            return UsageError(
                f"{key}={value} is not known.{did_you_mean(value, choices)}",
                f"Choose one of: {', '.join(choices)}.",
            )
        try:
            _load(command, (word,) if choices else (), root)
        except Exception as cause:
            return _broken(key, value, cause)
    return UsageError(_first_line(error), "See what there is: swe doctor")


def _broken(group: str, name: str, error: Exception) -> UsageError:
    return UsageError(f"{group}/{name}.yaml cannot be used: {_first_line(error)}", "Mend it.")


def _unknown_key(key: str, command: str, nodes: Nodes, root: ConfigRoot) -> UsageError:
    """A key that ``command`` does not have: perhaps a slip, perhaps another command's."""
    meant = closest(key.partition("@")[0], _dotted_keys(nodes))
    owners = [
        f"swe {other}"
        for other in TRAINING_COMMANDS
        if other != command and _has(_load(other, (), root).nodes, key)
    ]
    if owners:
        meant, hint = None, f"It belongs to {' and '.join(owners)}."
    elif meant:
        hint = f"Write {meant}=…"
    else:
        hint = f"Keys of swe {command}: {', '.join(nodes)}."
        if command in TRAINING_COMMANDS:
            hint += f" All of them: swe {command} --cfg"
    question = f" Did you mean {meant}?" if meant else ""
    return UsageError(f"{key} is not a key of swe {command}.{question}", hint)


def _dotted_keys(nodes: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for name, node in nodes.items():
        if name != "_target_":
            keys.append(f"{prefix}{name}")
            if isinstance(node, Mapping):
                keys += _dotted_keys(node, f"{prefix}{name}.")
    return keys


def _first_line(error: Exception) -> str:
    """The part of a library's message that is about the user's words."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"{error.problem} in line {error.problem_mark.line + 1}."
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line.rstrip(".") + "."
