"""swe criteria, allocations, patterns: what one can choose from, as the classes themselves say."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from swe_cli.commands.shared import config_root, output
from swe_cli.config import ConfigRoot, as_typed, component
from swe_cli.contracts import GRADIENTS, INPUTS, Allocation, Criterion, Pattern
from swe_cli.criteria.magnitude import Magnitude
from swe_cli.errors import SweError
from swe_cli.experiments.spec import built
from swe_cli.experiments.training import ALWAYS_RECORDED
from swe_cli.pruning.prune import recorded_needs
from swe_cli.report.catalogue import Entry, print_catalogue, print_entry
from swe_cli.report.console import say
from swe_cli.report.text import NOTHING

STATISTICS, OF_GRADIENTS, OF_INPUTS = "statistics of training", "gradients", "layer inputs"
Facts = tuple[str, dict[str, str], dict[str, str]]  # section, columns, lines of one choice alone
_OPTION = re.compile(r"^(\w+):[^#\n]*#\s*(.+)$", re.M)
_QUOTED = re.compile(r"``(.+?)``", re.S)
_NAME = re.compile(r"^[a-zA-Z_][\w.=]*$")
COMMANDS = {"criterion": "criteria", "allocation": "allocations", "pattern": "patterns"}
_LEGENDS = {
    "criterion": "ratios: scored once, for every ratio, or a run for each. weights: whether those "
    "that stay are changed too. published: the allocation of its paper.",
    "allocation": "looks at: what it divides a ratio up by. within: among which scores the lowest "
    "are looked for. A rate is the paper's multiplier of a standard deviation.",
    "pattern": "stored model: smaller where swe prune keeps only what is left.",
}


def catalogue(words: Sequence[str], config_dir: Path | None, *, group: str) -> None:
    """Every choice of a group, by what it needs; or the one that ``words`` names, whole."""
    root, console = config_root(config_dir), output()
    root.install()
    if words:
        print_entry(console, _entry(group, words[0].removeprefix(f"{group}="), root))
        return
    entries = []
    for name in root.options(group):
        try:
            entries.append(_entry(group, name, root))
        except SweError as error:  # a line that says so: the others are still worth seeing
            section = "Cannot be used as it is"
            entries.append(Entry(name=name, section=section, problem=str(error)))
    print_catalogue(console, group, sorted(entries, key=_place))
    console.print()
    say(console, f"{_LEGENDS[group]} One of them whole: swe {COMMANDS[group]} NAME", "dim")


def _place(entry: Entry) -> tuple[bool, ...]:
    """By what they need, in the order of what a run offers; what cannot be used comes last."""
    kinds = (STATISTICS, OF_GRADIENTS, OF_INPUTS)
    return bool(entry.problem), *(kind not in entry.section for kind in kinds)


def _entry(group: str, name: str, root: ConfigRoot) -> Entry:
    chosen = component(group, name, root)
    describe: Mapping[str, Callable[..., Facts]] = {
        "criterion": _of_criterion,
        "allocation": _of_allocation,
        "pattern": _of_pattern,
    }
    section, facts, commands = describe[group](name, built(chosen))
    path = _yaml_of(group, name, root)
    comments = _comments(group, name, root)
    options = {
        f"{group}.{key}": "  ".join(filter(None, [as_typed(value), comments.get(key)]))
        for key, value in chosen.options.items()
    }
    target = chosen.target
    made_of = {"YAML": str(path), "class": f"{target.__module__}.{target.__qualname__}"}
    paragraphs = [text for source in _sources(target) for text in _paragraphs(source)]
    more = {**commands, **options, **made_of}
    return Entry(name=name, section=section, facts=facts, paragraphs=paragraphs, more=more)


# What a class says of itself


def _of_criterion(name: str, criterion: Criterion) -> Facts:
    needs = tuple(criterion.needs)
    recorded = recorded_needs(needs)
    kinds = {
        STATISTICS: bool(recorded),
        OF_GRADIENTS: any(need in GRADIENTS for need in needs),
        OF_INPUTS: any(need in INPUTS for need in needs),
    }
    judged = [kind for kind, needed in kinds.items() if needed]
    ratios = {"weight": "all, scored once", "layer": "one run each", "mask": "none: finds its own"}
    drawn = criterion.granularity == "mask"
    columns = {
        "needs": "\n".join(needs) or NOTHING,
        "ratios": ratios[criterion.granularity],
        "weights": "updated" if criterion.updates_weights else "kept",
        "published": NOTHING if drawn else criterion.published,
    }
    asked = [statistic for statistic in recorded if statistic != ALWAYS_RECORDED]
    flag = f"swe train tracking.statistics=[{','.join(asked)}] (swe sweep adds it by itself)"
    more = {"to train": flag if asked else "any training will do: swe train"}
    if len(recorded) < len(needs):
        more["to calibrate"] = "calibration.samples=… (of the training split)"
    more["to prune"] = f"swe prune {'' if drawn else '--ratio 0.5 '}criterion={name}"
    if not drawn and criterion.published != "global":
        more["as published"] = f"{more['to prune']} allocation=published"
    return f"Needs {' and '.join(judged) or 'nothing but the weights'}", columns, more


def _of_allocation(name: str, allocation: Allocation) -> Facts:
    more = {"to prune": f"swe prune --ratio 0.5 allocation={name}"}
    if allocation.stands_for(Magnitude()) is not None:
        return "", dict.fromkeys(("looks at", "within", "takes"), "the criterion"), more
    looks_at = ["scores", *(f"ranks by {criterion}" for criterion in allocation.consults)]
    looks_at += ["the loss, probed"] if allocation.probes else []
    columns = {
        "looks at": "\n".join(looks_at),
        "within": allocation.within,
        "takes": "ratio or rate" if allocation.takes_rate else "ratio",
    }
    return "", columns, more


def _of_pattern(name: str, pattern: Pattern) -> Facts:
    groups = "" if pattern.group is None else f", in groups of {pattern.group}"
    columns = {
        "ratio": "any" if pattern.ratio is None else f"fixed, {pattern.ratio:g}",
        "cuts": f"whole {pattern.unit}s" if pattern.unit else f"single weights{groups}",
        "stored model": "smaller" if pattern.unit else "same size",
    }
    amount = "--ratio 0.5 " if pattern.ratio is None else ""
    return "", columns, {"to prune": f"swe prune {amount}pattern={name}"}


def _sources(target: Any) -> list[Any]:
    """What is built and, of a class, what of its own kind it is made from, contracts apart."""
    if not inspect.isclass(target):
        return [target]
    apart = ("builtins", "abc", "typing", "torch", "swe_cli.contracts")
    return [cls for cls in target.__mro__ if not cls.__module__.startswith(apart)]


def _paragraphs(source: Any) -> list[str]:
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


def _yaml_of(group: str, name: str, root: ConfigRoot) -> Path:
    paths = [folder / group / f"{name}.yaml" for folder in root.folders()]
    return next(path for path in paths if path.is_file())


def _comments(group: str, name: str, root: ConfigRoot) -> dict[str, str]:
    """Option → the comment beside it, also of the YAML that this one builds on."""
    text = _yaml_of(group, name, root).read_text(encoding="utf-8")
    comments: dict[str, str] = {}
    for base in yaml.safe_load(text).get("defaults") or ():
        if base in root.options(group):
            comments |= _comments(group, base, root)
    return comments | {key: comment.strip() for key, comment in _OPTION.findall(text)}
