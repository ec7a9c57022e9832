"""swe criteria, allocations, patterns: what one can choose from, as the classes themselves say."""

import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from swe_cli.commands.shared import config_root, output
from swe_cli.compose import ConfigRoot, default_part
from swe_cli.contracts import (
    GRADIENTS,
    INPUTS,
    DrawnCriterion,
    LayerwiseCriterion,
    RateAllocation,
    StandInAllocation,
    UnitPattern,
)
from swe_cli.errors import SweError
from swe_cli.pruning.cut import recorded_needs
from swe_cli.reporting.catalogue import Entry, print_catalogue, print_entry
from swe_cli.reporting.terminal_tables import say
from swe_cli.reporting.text import NOTHING
from swe_cli.sweeps.build import ALWAYS_RECORDED

Facts = tuple[str, dict[str, str], dict[str, str]]  # section, columns, lines of one choice alone
OWN_SPARSITY = "none: finds its own"
STATISTICS, OF_GRADIENTS, OF_INPUTS = "statistics of training", "gradients", "layer inputs"
_OPTION = re.compile(r"^(\w+):[^#\n]*#\s*(.+)$", re.M)
_QUOTED = re.compile(r"``(.+?)``", re.S)
_NAME = re.compile(r"^[a-zA-Z_][\w.=]*$")
_LIBRARIES = ("builtins", "abc", "typing", "torch")
COMMANDS = {"criterion": "criteria", "allocation": "allocations", "pattern": "patterns"}
_LEGENDS = {
    "criterion": "ratios: scored once, for every ratio, or a run for each. weights: whether those "
    "that stay are changed too. published: the allocation of its paper.",
    "allocation": "looks at: what it divides a ratio up by. within: among which scores the lowest "
    "are looked for. A rate is the paper's multiplier of a standard deviation.",
    "pattern": "stored model: smaller where swe prune keeps only what is left.",
}


def criteria(words: Sequence[str], config_dir: Path | None) -> None:
    """Every criterion, by what it needs; or the one that ``words`` names, whole."""
    _show("criterion", _of_criterion, words, config_dir)


def allocations(words: Sequence[str], config_dir: Path | None) -> None:
    """Every allocation; or the one that ``words`` names, whole."""
    _show("allocation", _of_allocation, words, config_dir)


def patterns(words: Sequence[str], config_dir: Path | None) -> None:
    """Every pattern; or the one that ``words`` names, whole."""
    _show("pattern", _of_pattern, words, config_dir)


def _show(
    group: str,
    facts: Callable[[str, Any], Facts],
    words: Sequence[str],
    config_dir: Path | None,
) -> None:
    root, console = config_root(config_dir), output()
    root.install()
    if words:
        name = words[0].removeprefix(f"{group}=")
        print_entry(console, _entry(group, name, facts, root))
        return
    entries = [_entry_or_problem(group, name, facts, root) for name in root.options(group)]
    print_catalogue(console, group, sorted(entries, key=_place))
    console.print()
    say(console, f"{_LEGENDS[group]} One of them whole: swe {COMMANDS[group]} NAME", "dim")


def _place(entry: Entry) -> tuple[bool, ...]:
    """By what they need, in the order of what a run offers; what cannot be used comes last."""
    kinds = (STATISTICS, OF_GRADIENTS, OF_INPUTS)
    return bool(entry.problem), *(kind not in entry.section for kind in kinds)


def _entry_or_problem(
    group: str, name: str, facts: Callable[[str, Any], Facts], root: ConfigRoot
) -> Entry:
    """A YAML that cannot be built is a line that says so: the others are still worth seeing."""
    try:
        return _entry(group, name, facts, root)
    except SweError as error:
        return Entry(name=name, section="Cannot be used as it is", problem=str(error))


def _entry(group: str, name: str, facts: Callable[[str, Any], Facts], root: ConfigRoot) -> Entry:
    part = default_part(group, name, root)
    section, columns, more = facts(name, part.build())
    path = _yaml_of(group, name, root)
    comments = _comments(group, name, root)
    options = {
        f"{group}.{key}": "  ".join(filter(None, [_typed(value), comments.get(key)]))
        for key, value in part.options.items()
    }
    target = part.target
    made_of = {"YAML": str(path), "class": f"{target.__module__}.{target.__qualname__}"}
    return Entry(
        name=name,
        section=section,
        facts=columns,
        paragraphs=[text for source in _sources(target) for text in _paragraphs(source)],
        more={**more, **options, **made_of},
    )


# What a class says of itself


def _of_criterion(name: str, criterion: Any) -> Facts:
    needs = tuple(criterion.needs)
    recorded = recorded_needs(needs)
    kinds = {
        STATISTICS: bool(recorded),
        OF_GRADIENTS: any(need in GRADIENTS for need in needs),
        OF_INPUTS: any(need in INPUTS for need in needs),
    }
    judged = [kind for kind, needed in kinds.items() if needed]
    drawn = isinstance(criterion, DrawnCriterion)
    each = isinstance(criterion, LayerwiseCriterion)
    columns = {
        "needs": "\n".join(needs) or NOTHING,
        "ratios": OWN_SPARSITY if drawn else "one run each" if each else "all, scored once",
        "weights": "updated" if getattr(criterion, "updates_weights", False) else "kept",
        "published": NOTHING if drawn else getattr(criterion, "published", "global"),
    }
    more = {"to train": _training(recorded)}
    if len(recorded) < len(needs):
        more["to calibrate"] = "calibration.samples=… (of the training split)"
    more["to prune"] = f"swe prune {'' if drawn else '--ratio 0.5 '}criterion={name}"
    if not drawn and columns["published"] != "global":
        more["as published"] = f"{more['to prune']} allocation=published"
    return f"Needs {' and '.join(judged) or 'nothing but the weights'}", columns, more


def _training(recorded: Sequence[str]) -> str:
    asked = [statistic for statistic in recorded if statistic != ALWAYS_RECORDED]
    if asked:
        return f"swe train tracking.statistics=[{','.join(asked)}] (swe sweep adds it by itself)"
    return "any training will do: swe train"


def _of_allocation(name: str, allocation: Any) -> Facts:
    more = {"to prune": f"swe prune --ratio 0.5 allocation={name}"}
    if isinstance(allocation, StandInAllocation):
        asked_of = "the criterion"
        return "", {"looks at": asked_of, "within": asked_of, "takes": asked_of}, more
    asked = [f"ranks by {criterion}" for criterion in allocation.consults]
    asked += ["the loss, probed"] if allocation.probes else []
    columns = {
        "looks at": "\n".join(["scores", *asked]),
        "within": allocation.within,
        "takes": "ratio or rate" if isinstance(allocation, RateAllocation) else "ratio",
    }
    return "", columns, more


def _of_pattern(name: str, pattern: Any) -> Facts:
    units = isinstance(pattern, UnitPattern)
    groups = "" if pattern.group is None else f", in groups of {pattern.group}"
    columns = {
        "ratio": "any" if pattern.ratio is None else f"fixed, {pattern.ratio:g}",
        "cuts": f"whole {pattern.unit}s" if units else f"single weights{groups}",
        "stored model": "smaller" if units else "same size",
    }
    amount = "--ratio 0.5 " if pattern.ratio is None else ""
    return "", columns, {"to prune": f"swe prune {amount}pattern={name}"}


def _sources(target: Callable[..., Any]) -> list[Callable[..., Any]]:
    """What is built and, of a class, what of its own kind it is made from."""
    if not inspect.isclass(target):
        return [target]
    return [cls for cls in target.__mro__ if cls.__module__.partition(".")[0] not in _LIBRARIES]


def _paragraphs(source: Callable[..., Any]) -> list[str]:
    """Its own docstring, reflowed; what is indented (a list, code) stays as it is."""
    text = inspect.cleandoc(source.__doc__ or "")
    if text.startswith(f"{getattr(source, '__name__', '')}("):
        return []  # a dataclass without a docstring is given its signature as one
    # Quotes help where a name stands in a sentence; an equation is one without.
    plain = _QUOTED.sub(lambda found: _NAME.sub(r"`\g<0>`", found[1]), text)
    return [
        block if "\n " in block or block.startswith(" ") else " ".join(block.split())
        for block in plain.split("\n\n")
        if block.strip()
    ]


# What its YAML says


def _yaml_of(group: str, name: str, root: ConfigRoot) -> Path:
    paths = [folder / group / f"{name}.yaml" for folder in root.folders()]
    return next(path for path in paths if path.is_file())


def _comments(group: str, name: str, root: ConfigRoot) -> dict[str, str]:
    """Option → the comment beside it, also of the YAML that this one builds on."""
    text = _yaml_of(group, name, root).read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for base in yaml.safe_load(text).get("defaults") or ():
        if base in root.options(group):
            found |= _comments(group, base, root)
    return found | {key: comment.strip() for key, comment in _OPTION.findall(text)}


def _typed(value: Any) -> str:
    """A value as one types it."""
    plain = {None: "null", True: "true", False: "false"}
    return plain[value] if value is None or isinstance(value, bool) else str(value)
