"""Where YAMLs are found, and what a half-typed word can become from their names and keys alone.

A shell waits at every press of the tab key: neither Hydra nor torch is imported.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from swe_cli.config.words import PLURALS
from swe_cli.errors import UsageError

LARGEST_YAML, DEEPEST_YAML, MOST_ALIASES = 100_000, 30, 50


@dataclass(frozen=True)
class ConfigRoot:
    """The shipped ``conf/`` and, beside it, the user's own folder."""

    extra: Path | None = None

    def install(self) -> None:
        """Let the user's own package, beside the folder, be imported.

        Raises UsageError where the folder is missing, or where one of its choices has a shipped
        name: stored runs hold names only, so a name must mean one thing.
        """
        if self.extra is None:
            return
        if not self.extra.is_dir():
            hint = "Name a folder that holds GROUP/NAME.yaml."
            raise UsageError(f"--config-dir {self.extra} is not a folder.", hint)
        for path in sorted(self.extra.glob("**/*.yaml")):
            inside = path.relative_to(self.extra)
            if (shipped_conf() / inside).is_file():
                why = f"{path} has the name of a shipped choice, {inside.with_suffix('')}."
                raise UsageError(why, "Give the file a name of its own.")
            _check_size(path)
        parent = str(self.extra.resolve().parent)
        if parent not in sys.path:
            sys.path.insert(0, parent)

    def yamls(self, group: str = "*") -> list[Path]:
        """The YAMLs of a group, or of all, by name; none where there is no such group."""
        folders = [shipped_conf(), *([self.extra] if self.extra else [])]
        if not (group == "*" or group.isidentifier()):
            return []
        return sorted((p for f in folders for p in f.glob(f"{group}/*.yaml")), key=lambda p: p.stem)

    def options(self, group: str) -> list[str]:
        """Names one can choose in a group, sorted; none where there is no such group."""
        return [path.stem for path in self.yamls(group)]


def _check_size(path: Path) -> None:
    """Refuse what would take minutes to compose: a stranger's YAML can be small and hold much."""
    depth = aliases = 0
    try:
        large = path.stat().st_size > LARGEST_YAML
        for event in () if large else yaml.parse(path.read_text(encoding="utf-8")):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            aliases += isinstance(event, yaml.AliasEvent)
            if large := depth > DEEPEST_YAML or aliases > MOST_ALIASES:
                break
    except (OSError, ValueError, yaml.YAMLError):
        return  # which is said, in a sentence, where it is composed
    if large:
        limits = f"{LARGEST_YAML // 1000} kB, {DEEPEST_YAML} levels and {MOST_ALIASES} aliases"
        raise UsageError(f"{path} is larger than a choice can be: {limits}.", "Take some out.")


@cache
def shipped_conf() -> Path:
    """``conf/`` inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def dotted(nodes: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key → node, of nodes inside others too."""
    for name, node in nodes.items():
        if name.startswith("_") or name == "defaults":
            continue
        yield f"{prefix}{name}", node
        if isinstance(node, Mapping):
            yield from dotted(node, f"{prefix}{name}.")


def completions(incomplete: str, root: ConfigRoot) -> list[str]:
    """Whole words that begin with ``incomplete``, sorted: keys, or choices of the group it names.

    ``criterion=`` and, after every comma of an axis, ``criteria=swe,`` give the names of criteria;
    ``training.`` the options of every training. A key ends in ``=``.
    """
    key, equals, value = incomplete.partition("=")
    if equals:
        *earlier, last = value.split(",")
        start, names = incomplete.removesuffix(last), root.options(PLURALS.get(key, key))
        return [start + n for n in names if n.startswith(last) and n not in earlier]
    group, dot, _ = key.partition(".")
    if dot and group != "experiment":  # whose keys are those of the top level
        pairs = [pair for path in root.yamls(group) for pair in dotted(read(path), f"{group}.")]
        keys = {name for name, node in pairs if not isinstance(node, Mapping)}
    else:
        settings = {name for path in shipped_conf().glob("*.yaml") for name in read(path)}
        settings |= {*(path.parent.name for path in root.yamls()), *PLURALS}
        keys = settings - {"axes", "defaults"}
    return sorted(f"{name}=" for name in keys if name.startswith(key))


def read(path: Path) -> dict[str, Any]:
    """What a YAML holds; nothing where it cannot be read: completion is no place for an error."""
    try:
        stored = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return stored if isinstance(stored, dict) else {}
