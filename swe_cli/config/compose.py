"""A command's configuration: YAMLs and overrides put together by Hydra, then checked."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import yaml

from swe_cli.config.components import (
    MISSING,
    USUAL,
    Component,
    Settings,
    as_typed,
    check,
    checked_component,
    keyword_options,
)
from swe_cli.config.root import ConfigRoot, dotted, read, shipped_conf
from swe_cli.config.words import closest, did_you_mean, value_of
from swe_cli.errors import UsageError

TRAINING_COMMANDS = ("train", "prune", "sweep", "evaluate")  # whose keys one mixes up
SHIPPED = ConfigRoot()
SETTINGS = keyword_options(Settings)

Nodes = dict[str, Any]
Words = tuple[str, ...]


@dataclass(frozen=True)
class Composed:
    """A checked configuration: components by group, plain values by key of the top level.

    ``refers``: whether some value of a YAML was that of another key.
    """

    components: dict[str, Component]
    values: dict[str, Any]
    refers: bool = False

    def __getitem__(self, group: str) -> Component:
        return self.components[group]

    def at(self, words: Iterable[str]) -> "Composed":
        """The same with plain keys (``is_plain``) set by ``words``, to which nothing refers."""
        told = {word.partition("=")[0]: value_of(word) for word in words}
        checked = {key: check(key, SETTINGS[key], value) for key, value in told.items()}
        return replace(self, values=self.values | checked)


def is_plain(word: str) -> bool:
    """Whether an override sets a plain key of the top level, to what is no mapping."""
    key, _, value = word.partition("=")
    return key in SETTINGS and not value.startswith("{")


def compose(command: str, typed: Words = (), root: ConfigRoot = SHIPPED, *about: str) -> Composed:
    """Compose ``conf/<command>.yaml`` with scalar overrides and check every node. ``about``: words
    of choices that it is for, which bring what goes with them.

    Raises UsageError with one sentence: an unknown key or choice, a wrong type, a bad value.
    """
    for word in typed:
        _check_word(word, command, root)
    plain = _load(command, (), root)
    overrides = (*_usual((*about, *typed), plain, root), *typed)
    # Choices are taken before values, whatever the order they are typed in.
    choices = {_key(word): word for word in overrides if _key(word) in plain.names}
    nodes, names, _ = _chosen(command, choices, root)
    for word in overrides:
        if _key(word) not in choices:
            nodes = _overridden(nodes, word, command, root)
    resolved = _resolved(nodes)
    composed = Composed({}, {}, refers=resolved is not nodes)
    for key, node in resolved.items():
        if key not in plain.nodes:
            raise _unknown_key(key, command, plain.nodes, root)
        if key in SETTINGS:
            composed.values[key] = check(key, SETTINGS[key], node)
        else:
            composed.components[key] = checked_component(key, str(names[key]), node)
    return composed


def _usual(typed: tuple[str, ...], plain: "Tree", root: ConfigRoot) -> list[str]:
    """What goes with the choices that are typed, or an experiment's, as their YAMLs say under
    ``_with_``: words for groups of which nothing, and options of which neither they nor their
    choice, is said.
    """
    words, told = list[str](), {_key(word): value_of(word) for word in typed}
    told = said_by(told.get("experiment"), root) | told
    groups = {key.partition(".")[0] for key in told}
    for choice, name in told.items():
        node = _alone(choice, name, root) if isinstance(name, str) else None
        for key, value in (node or {}).get(USUAL, {}).items():
            group, _, option = key.partition(".")
            known = {key, group} & told.keys() if option else {group} & groups
            if group in plain.names and not known:
                words.append(f"{key}={as_typed(value)}")
    return words


def said_by(experiment: Any, root: ConfigRoot) -> dict[str, Any]:
    """Dotted key → value (of a group, choice): what an experiment, if any, and its bases set."""
    if experiment is None:  # of ten thousand cells, ten thousand looks into a folder
        return {}
    said = next((read(p) for p in root.yamls("experiment") if p.stem == experiment), {})
    told = dict[str, Any]()
    for of in said.get("defaults", ()):
        chosen = of if isinstance(of, Mapping) else said_by(of, root)
        told |= {key.rpartition("/")[2]: name for key, name in chosen.items()}
    return told | {key: of for key, of in dotted(said) if not isinstance(of, Mapping)}


def component(
    group: str, name: str, root: ConfigRoot, options: Mapping[str, Any] | None = None
) -> Component:
    """A choice of a group, stored ``options`` laid over its YAML's, from which the target comes."""
    return checked_component(group, name, _merged(choice_options(group, name, root), options or {}))


def choice_options(group: str, name: str, root: ConfigRoot) -> Nodes:
    """The YAML of one choice; a value still to be given, or of another group, is ``???``."""
    choices = root.options(group)
    if name not in choices:
        known = f"Known: {', '.join(choices)}. Where it is your own, add --config-dir."
        raise UsageError(f"{group}={name} is not known here.{did_you_mean(name, choices)}", known)
    told: Nodes = _choice(group, name, root)
    outside = re.compile(rf"\$\{{(?!{group}\.)")
    told = {k: MISSING if isinstance(v, str) and outside.match(v) else v for k, v in told.items()}
    return dict(_resolved({group: told})[group])


def _merged(node: Nodes, options: Mapping[str, Any]) -> Nodes:
    """``options`` laid over ``node``, inside its own components too."""
    of = {key: value for key, value in options.items() if isinstance(value, Mapping)}
    inside = {k: _merged(node[k], of[k]) for k in of if "_target_" in (node.get(k) or {})}
    return {**node, **options, **inside}


class Tree(NamedTuple):
    """What YAMLs say, references unresolved; the choice of each group; the command it is for."""

    nodes: Nodes
    names: dict[str, str | None]
    command: str | None


def _chosen(command: str, choices: Mapping[str, str], root: ConfigRoot) -> Tree:
    """The YAMLs of ``command`` with choices (group → word). What a YAML says alone is put into its
    group without Hydra, which would take its time for every combination of choices.
    """
    reached = _of_experiments(root) if "experiment" in choices else ()
    alone = {}
    for group, word in choices.items():
        node = None if group in reached else _alone(group, value_of(word), root)
        if node is not None:
            alone[group] = node
    others = tuple(word for group, word in choices.items() if group not in alone)
    names = {group: value_of(choices[group]) for group in alone}
    tree = _load(command, others, root)
    return tree._replace(nodes=tree.nodes | alone, names=tree.names | names)


@lru_cache(maxsize=64)
def _of_experiments(root: ConfigRoot) -> set[str]:
    """Keys of the top level that some experiment sets, for whatever is chosen there."""
    return {key for path in root.yamls("experiment") for key in read(path)}


@lru_cache(maxsize=1024)
def _alone(group: str, name: Any, root: ConfigRoot) -> Nodes | None:
    """What a choice's YAML says, unresolved; None where only Hydra can tell: it builds on others,
    stands elsewhere than in its group, or cannot be read.
    """
    from omegaconf import OmegaConf

    root.install()
    try:
        path = next(path for path in root.yamls(group) if path.stem == name)
        text = path.read_text(encoding="utf-8")
        node: Any = OmegaConf.to_container(OmegaConf.create(text))
    except Exception:  # Hydra is asked, and says what is wrong
        return None
    alone = isinstance(node, dict) and "defaults" not in node and "@package" not in text
    return node if alone else None


def _choice(group: str, name: str, root: ConfigRoot) -> Nodes:
    """The YAMLs of one choice, whichever way."""
    node = _alone(group, name, root)
    whole: Nodes = _load(None, (f"+{group}={name}",), root).nodes[group] if node is None else node
    return whole


@lru_cache(maxsize=256)
def _load(command: str | None, choices: tuple[str, ...], root: ConfigRoot) -> Tree:
    """The YAMLs of ``command`` by Hydra, which takes a tenth of a second: cells share them. Raises
    UsageError that names the first choice whose YAML cannot be used.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    root.install()
    added = [f"hydra.searchpath=['file://{root.extra.resolve()}']"] if root.extra else []
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(shipped_conf()), version_base="1.3"):
            config = hydra_compose(command, [*added, *choices], return_hydra_config=True)
    except Exception as error:  # Hydra and OmegaConf raise their own, OSError, ValueError, YAML's
        for word in choices if len(choices) > 1 else ():
            _load(command, (word,), root)
        files = " with ".join(f"{word.lstrip('+').replace('=', '/')}.yaml" for word in choices)
        raise UsageError(f"{files} cannot be used: {_first_line(error)}", "Mend it.") from error
    nodes: Any = OmegaConf.to_container(config)
    return Tree(nodes, nodes.pop("hydra")["runtime"]["choices"], nodes.pop("command", None))


def _overridden(nodes: Nodes, word: str, command: str, root: ConfigRoot) -> Nodes:
    """``nodes``, which stay, with one value set, added (``+``) or taken out (``~``)."""
    key, adds = _key(word), word.startswith("+")
    *outer, last = key.split(".")
    changed = inner = dict(nodes)
    for name in outer:
        node = inner.get(name)
        inner[name] = dict(node) if isinstance(node, dict) else {}
        inner = inner[name]
    if last not in inner and not (adds and outer and outer[0] in nodes):
        raise _unknown_key(key.partition(".")[0] if adds else key, command, nodes, root)
    if last in inner and adds and not word.startswith("++"):
        raise _there_already(word)
    if word.startswith("~"):
        del inner[last]
        return changed
    old, value = inner.get(last), value_of(word)
    if outer and isinstance(value, dict) and isinstance(old, dict):
        value = old | value
    inner[last] = value
    return changed


def _resolved(nodes: Nodes) -> Nodes:
    """Plain values with every reference (``${…}``) looked up."""
    if "${" not in str(nodes):
        return nodes
    from omegaconf import OmegaConf

    try:
        resolved: Any = OmegaConf.to_container(OmegaConf.create(nodes), resolve=True)
    except Exception as error:  # OmegaConf's own, and those of its resolvers
        _, missing, needed = str(error).partition("Missing mandatory value: ")
        if missing:
            needed = needed.split()[0]
            raise UsageError(f"{needed} is needed.", f"Add {needed}=…") from error
        key = getattr(error, "full_key", None) or "A reference"
        raise UsageError(f"{key} cannot be used: {_first_line(error)}", "Write a value.") from error
    return dict(resolved)


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


@lru_cache(maxsize=1024)
def _check_word(word: str, command: str, root: ConfigRoot) -> None:
    """Refuse what no command takes, what it cannot do without, and a choice that is not there."""
    plain, key, value = _load(command, (), root), _key(word), word.partition("=")[2]
    if key.replace("/", ".").split(".")[0] == "hydra":
        raise UsageError(f"{word}: swe keeps Hydra's own settings to itself.", "Leave it out.")
    if any(name.startswith("_") for name in key.split(".")):
        raise UsageError(f"{key} is not for the command line.", "It belongs in a YAML.")
    if word.startswith("~") and key in plain.nodes:
        raise UsageError(f"swe {command} cannot do without {key}.", f"Leave ~{key} out.")
    if key not in (*plain.names, "experiment"):
        return
    choices = root.options(key)
    if key == "experiment" and command in TRAINING_COMMANDS and value in choices:
        intended = _load("sweep", (word,), root).command or command  # sweep has all groups
        if intended != command:
            hint = f"Type: swe {intended} {word}"
            raise UsageError(f"{word} is meant for swe {intended}.", hint)
    if key not in plain.names:
        return
    if word.startswith("+"):
        raise _there_already(word)
    if value not in choices and value_of(word) not in (*choices, plain.names[key]):
        question = did_you_mean(value, choices)
        hint = f"Choose one of: {', '.join(choices)}. Your own: add --config-dir."
        raise UsageError(f"{key}={value} is not known.{question}", hint)


def _there_already(word: str) -> UsageError:
    return UsageError(f"{_key(word)} is there already.", f"Write {word.lstrip('+')}")


def _unknown_key(key: str, command: str, nodes: Nodes, root: ConfigRoot) -> UsageError:
    """A key that ``command`` does not have: perhaps another command's, perhaps a slip."""
    sentence = f"{key} is not a key of swe {command}."
    group = key.partition(".")[0]
    if key != group and group in nodes and group not in SETTINGS:
        choices = {name: {group: _choice(group, name, root)} for name in root.options(group)}
        having = [f"{group}={name}" for name, node in choices.items() if key in dict(dotted(node))]
        if having:
            return UsageError(sentence, f"It belongs to {' or '.join(having)}.")
    trees = {other: _load(other, (), root).nodes for other in TRAINING_COMMANDS if other != command}
    owners = [f"swe {other}" for other, tree in trees.items() if key in dict(dotted(tree))]
    if owners:
        return UsageError(sentence, f"It belongs to {' and '.join(owners)}.")
    if meant := closest(key.partition("@")[0], (name for name, _ in dotted(nodes))):
        return UsageError(f"{sentence} Did you mean {meant}?", f"Write {meant}=…")
    everything = f" All of them: swe {command} --cfg" if command in TRAINING_COMMANDS else ""
    return UsageError(sentence, f"Keys of swe {command}: {', '.join(nodes)}.{everything}")


def _first_line(error: Exception) -> str:
    """The part of a library's message that is about the user's words."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"{error.problem} in line {error.problem_mark.line + 1}."
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line.rstrip(".") + "."
