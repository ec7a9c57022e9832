"""What a half-typed word can become, from the names of files and the keys in YAMLs alone.

A shell waits for it at every press of the tab key: neither Hydra nor torch is imported.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from swe_cli.config.root import ConfigRoot, shipped_conf
from swe_cli.config.words import PLURALS


def completions(incomplete: str, root: ConfigRoot) -> list[str]:
    """Whole words that begin with ``incomplete``, sorted: keys, or choices of the group it names.

    ``criterion=`` and, after every comma of an axis, ``criteria=swe,`` give the names of criteria;
    ``training.`` the options of every training. A key ends in ``=``.
    """
    key, equals, value = incomplete.partition("=")
    if equals:
        *earlier, last = value.split(",")
        start = f"{key}={''.join(f'{name},' for name in earlier)}"
        names = root.options(PLURALS.get(key, key))
        return [start + n for n in names if n.startswith(last) and n not in earlier]
    group, dot, _ = key.partition(".")
    options = dot and group != "experiment"  # whose keys are those of the top level
    keys = _option_keys(group, root) if options else _top_keys(root)
    return sorted({f"{name}=" for name in keys if name.startswith(key)})


def _top_keys(root: ConfigRoot) -> Iterable[str]:
    """Settings, groups, and the plurals that name axes."""
    settings = {key for path in shipped_conf().glob("*.yaml") for key in _read(path)}
    return {*settings, *root.groups(), *PLURALS} - {"axes"}


def _option_keys(group: str, root: ConfigRoot) -> list[str]:
    paths = [path for folder in root.folders() for path in (folder / group).glob("*.yaml")]
    return [key for path in paths for key in _dotted(_read(path), f"{group}.")]


def _dotted(node: dict[str, Any], prefix: str) -> list[str]:
    keys = []
    for name, value in node.items():
        if isinstance(value, dict):
            keys += _dotted(value, f"{prefix}{name}.")
        elif name != "_target_":
            keys.append(f"{prefix}{name}")
    return keys


def _read(path: Path) -> dict[str, Any]:
    """The keys of a YAML; none where it cannot be read: completion is no place for an error."""
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return {k: v for k, v in stored.items() if k != "defaults"} if isinstance(stored, dict) else {}
