"""YAMLs and overrides put together by Hydra, and its errors said in our words."""

from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from swe_cli.compose.check import ROOT_TYPES
from swe_cli.compose.root import ConfigRoot, shipped_conf
from swe_cli.compose.suggest import closest, did_you_mean
from swe_cli.errors import UsageError

TRAINING_COMMANDS = ("train", "prune", "sweep", "evaluate")  # whose keys one mixes up
COMMAND = "command"  # the key by which an experiment names the command that it is for


class Tree(NamedTuple):
    """A composed configuration as plain values, and which choice each group got."""

    nodes: dict[str, Any]
    choices: dict[str, str | None]


def compose_tree(config: str, overrides: tuple[str, ...], root: ConfigRoot) -> Tree:
    """Compose ``config`` with scalar overrides. Raises UsageError naming the override at fault."""
    root.install()
    for word in overrides:
        if _key(word).replace("/", ".").split(".")[0] == "hydra":
            raise UsageError(f"{word}: swe keeps Hydra's own settings to itself.", "Leave it out.")
        if any(part.startswith("_") for part in _key(word).split(".")):
            raise UsageError(f"{_key(word)} is not for the command line.", "It belongs in a YAML.")
    _check_experiment(config, overrides, root)
    try:
        return _compose(config, overrides, root)
    except MissingMandatoryValue as error:
        key = getattr(error, "full_key", None) or "a value"
        raise UsageError(f"{key} is needed.", f"Add {key}=…") from None
    except Exception as error:  # Hydra and OmegaConf raise their own, OSError, ValueError, YAML's
        raise _explained(error, config, overrides, root) from error


def choice_node(group: str, name: str, root: ConfigRoot) -> Any:
    """The YAML of one choice, whoever's it is. A value that is still to be given is ``???``."""
    root.install()
    try:
        return _compose(None, (f"+{group}={name}",), root, complete=False).nodes[group]
    except Exception as error:
        raise UsageError(f"{group}/{name}.yaml cannot be used: {_first_line(error)}") from error


@lru_cache(maxsize=16)
def plain_tree(config: str, root: ConfigRoot) -> Tree:
    """``config`` with nothing overridden: which keys there are."""
    return _compose(config, (), root, complete=False)


def _compose(
    config: str | None, overrides: tuple[str, ...], root: ConfigRoot, complete: bool = True
) -> Tree:
    """Hydra takes a tenth of a second; a ratio or a seed chooses no YAML and is set on a copy."""
    values = tuple(word for word in overrides if word.partition("=")[0] in ROOT_TYPES)
    choosing = tuple(word for word in overrides if word not in values)
    composed, choices = _chosen(config, choosing, root)
    if not all(word.partition("=")[0] in composed for word in values):
        composed, choices = _chosen(config, overrides, root)  # Hydra says what is wrong
    typed = {o.key_or_group: o.value() for o in OverridesParser.create().parse_overrides([*values])}
    plain = _plain(config, choosing, root, complete)
    if plain is not None and "$" not in str(values):
        return Tree({**deepcopy(plain), **typed}, choices)
    composed = deepcopy(composed)
    for key, value in typed.items():
        composed[key] = value
    return Tree(_as_plain(composed, complete), choices)


@lru_cache(maxsize=64)
def _plain(
    config: str | None, overrides: tuple[str, ...], root: ConfigRoot, complete: bool
) -> dict[str, Any] | None:
    """A configuration as plain values; None where one may refer to another (``${…}``), which is
    then looked up anew for every value that is set. A sweep of a thousand cells is planned in
    seconds for it.
    """
    composed, _ = _chosen(config, overrides, root)
    if "${" in str(OmegaConf.to_container(composed)):
        return None
    return _as_plain(composed, complete)


def _as_plain(composed: DictConfig, complete: bool) -> dict[str, Any]:
    nodes = OmegaConf.to_container(composed, resolve=True, throw_on_missing=complete)
    assert isinstance(nodes, dict)
    return {str(key): node for key, node in nodes.items()}


@lru_cache(maxsize=64)
def _chosen(
    config: str | None, overrides: tuple[str, ...], root: ConfigRoot
) -> tuple[DictConfig, dict[str, str | None]]:
    added = (f"hydra.searchpath=['file://{root.extra.resolve()}']",) if root.extra else ()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(shipped_conf()), version_base="1.3"):
        composed = hydra_compose(config, [*added, *overrides], return_hydra_config=True)
    choices = dict(composed.hydra.runtime.choices)
    OmegaConf.set_struct(composed, False)
    composed.pop("hydra")
    return composed, choices


# Errors


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]


def _check_experiment(config: str, overrides: tuple[str, ...], root: ConfigRoot) -> None:
    """Refuse an experiment for another command before Hydra stumbles over its keys."""
    if config not in TRAINING_COMMANDS:
        return
    name = next((w.partition("=")[2] for w in overrides if w.startswith("experiment=")), None)
    intended = _intended_command(name, root) if name else None
    if intended not in (None, config):
        raise UsageError(
            f"experiment={name} is meant for swe {intended}.",
            f"Type: swe {intended} experiment={name}",
        )


@lru_cache(maxsize=16)
def _intended_command(experiment: str, root: ConfigRoot) -> str | None:
    """What an experiment's YAML, or the one it builds on, says of its command."""
    paths = [folder / "experiment" / f"{experiment}.yaml" for folder in root.folders()]
    stored = next((_read(path) for path in paths if path.is_file()), {})
    if COMMAND in stored:
        return str(stored[COMMAND])
    for entry in stored.get("defaults") or ():
        if isinstance(entry, str) and entry not in ("_self_", experiment):
            return _intended_command(entry, root)
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}  # Hydra reads it next and says what is wrong with it
    return stored if isinstance(stored, dict) else {}


def _explained(
    error: Exception, config: str, overrides: tuple[str, ...], root: ConfigRoot
) -> UsageError:
    """One sentence about the first override that Hydra cannot take."""
    # Hydra takes choices before values, whatever the order they are typed in.
    ordered = sorted(overrides, key=lambda word: not root.options(_key(word)))
    for count in range(len(ordered) + 1):
        try:
            tree = _compose(config, tuple(ordered[:count]), root, complete=False)
        except Exception as cause:
            if count:
                return _about(ordered[count - 1], cause, config, tree, root)
            return UsageError(_first_line(cause), "See what there is: swe doctor")
    return UsageError(_first_line(error))


def _about(word: str, error: Exception, config: str, tree: Tree, root: ConfigRoot) -> UsageError:
    key, value = _key(word), word.partition("=")[2]
    if key not in _known_keys(tree.nodes) and key not in tree.choices:
        return unknown_key(key, config, tree.nodes, root)
    choices = root.options(key)
    if word.startswith("+"):
        return UsageError(f"{key} is there already.", f"Write {word.lstrip('+')}")
    if choices and value not in choices:
        return UsageError(
            f"{key}={value} is not known.{did_you_mean(value, choices)}",
            f"Choose one of: {', '.join(choices)}.",
        )
    if choices:
        return UsageError(f"{key}/{value}.yaml cannot be used: {_first_line(error)}", "Mend it.")
    return UsageError(f"{word} cannot be used: {_first_line(error)}", f"Write {key}=VALUE")


def unknown_key(key: str, config: str, nodes: Mapping[str, Any], root: ConfigRoot) -> UsageError:
    """A key that ``config`` does not have: perhaps a slip, perhaps another command's."""
    meant = closest(key.partition("@")[0], _known_keys(nodes))
    owners = [
        f"swe {command}"
        for command in TRAINING_COMMANDS
        if command != config and key in _known_keys(plain_tree(command, root).nodes)
    ]
    if owners:
        meant, hint = None, f"It belongs to {' and '.join(owners)}."
    elif meant:
        hint = f"Write {meant}=…"
    else:
        hint = f"Keys of swe {config}: {', '.join(nodes)}."
        if config in TRAINING_COMMANDS:
            hint += f" All of them: swe {config} --cfg"
    question = f" Did you mean {meant}?" if meant else ""
    return UsageError(f"{key} is not a key of swe {config}.{question}", hint)


def _known_keys(nodes: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for name, node in nodes.items():
        keys.append(f"{prefix}{name}")
        if isinstance(node, Mapping):
            keys += _known_keys(node, f"{prefix}{name}.")
    return [key for key in keys if "_target_" not in key]


def _first_line(error: Exception) -> str:
    """The part of a library's message that is about the user's words."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"{error.problem} in line {error.problem_mark.line + 1}."
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line.rstrip(".") + "."
