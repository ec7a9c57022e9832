"""swe criteria, allocations, patterns: what one can choose from, as the classes themselves say."""

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml
from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from swe_cli.commands.shared import Page
from swe_cli.config import ConfigRoot, as_typed, component, did_you_mean
from swe_cli.config.words import PLURALS
from swe_cli.contracts import BLOCKS, GRADIENTS, INPUTS, Allocation, Criterion, Pattern
from swe_cli.criteria.weights import Magnitude
from swe_cli.errors import SweError, UsageError
from swe_cli.experiments.model import ALWAYS_RECORDED
from swe_cli.experiments.spec import built
from swe_cli.pruning.prune import recorded_needs
from swe_cli.records import MEANINGS, meaning_of
from swe_cli.report.console import GAP, print_pairs, say, title
from swe_cli.report.text import NOTHING

STATISTICS, OF_GRADIENTS, OF_INPUTS = "statistics of training", "gradients", "layer inputs"
UNUSABLE = "Cannot be used as it is"
_OPTION = re.compile(r"^(\w+):[^#\n]*#\s*(.+)$", re.M)
_QUOTED = re.compile(r"``(.+?)``", re.S)
_NAME = re.compile(r"^[a-zA-Z_][\w.=]*$")
_LEGENDS = {
    "criterion": "ratios: scored once, for every ratio, or a run for each. weights: whether those "
    "that stay are changed too. published: the allocation of its paper.",
    "allocation": "looks at: what it divides a ratio up by. within: among which scores the lowest "
    "are looked for. A rate is the paper's multiplier of a standard deviation.",
    "pattern": "stored model: smaller where swe prune keeps only what is left.",
}


@dataclass
class Entry:
    """One choice. ``more``: shown of it alone; first of ``paragraphs``: equation and source."""

    name: str
    section: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    more: dict[str, str] = field(default_factory=dict)
    paragraphs: list[str] = field(default_factory=list)


def catalogue(this: Page, *, name: str | None) -> None:
    """Every choice of a group, by what it needs; or the one that is named, whole."""
    group, console, root = PLURALS[this.command], this.console, this.root
    root.install()
    if name:
        entry = _entry(group, name.removeprefix(f"{group}="), root)
        say(console, entry.name, "bold")
        for paragraph in entry.paragraphs:
            say(console, f"{paragraph}\n")
        print_pairs(console, [*entry.columns.items(), *entry.more.items()])
        return
    entries = []
    for name in root.options(group):
        try:
            entries.append(_entry(group, name, root))
        except SweError as error:  # a line that says so: the others are still worth seeing
            entries.append(Entry(name, UNUSABLE, paragraphs=[str(error)]))
    _print_all(console, group, sorted(entries, key=_place))
    say(console, f"\n{_LEGENDS[group]} One of them whole: swe {this.command} NAME", "dim")


criteria = allocations = patterns = catalogue


def columns(this: Page, *, name: str | None) -> None:
    """What each column of a table means; or the one that is named."""
    told = dict(MEANINGS)
    if name:
        if (meaning := meaning_of(name)) is None:
            guess = did_you_mean(name, MEANINGS)
            raise UsageError(f"No table has a column {name}.{guess}", "All of them: swe columns")
        told = {name: meaning}
    print_pairs(this.console, list(told.items()))
    this.result(told)


def _place(entry: Entry) -> tuple[bool, ...]:
    """By what they need, in the order of what a run offers; what cannot be used comes last."""
    kinds = (STATISTICS, OF_GRADIENTS, OF_INPUTS)
    return entry.section == UNUSABLE, *(kind not in entry.section for kind in kinds)


def _print_all(console: Console, group: str, entries: Sequence[Entry]) -> None:
    """Columns and, under them, equation and source; section by section."""
    heads = [group, *next((entry.columns for entry in entries if entry.columns), {})]
    rows = [[entry.name, *entry.columns.values()] for entry in entries]
    columns = zip_longest(heads, *rows, fillvalue="")
    widths = [max(cell_len(line) for cell in c for line in cell.split("\n")) for c in columns]

    def print_columns(cells: Sequence[str], style: str = "") -> None:
        grid = Table.grid(padding=(0, GAP, 0, 0))
        # The name gives way where the terminal is too narrow for all.
        grid.add_column(min_width=widths[0], overflow="fold")
        for width in widths[1:]:
            grid.add_column(width=width)
        grid.add_row(Text(cells[0], style), *map(Text, cells[1:]))
        console.print(grid)

    print_columns(heads)
    console.rule(style="")
    section = ""
    for entry, row in zip(entries, rows, strict=True):
        if entry.section != section:
            section = entry.section
            title(console, section)
        print_columns(row, "cyan")
        words = next(iter(entry.paragraphs), "(its class has no docstring)")
        below = Text(words, "red" if section == UNUSABLE else "")
        console.print(Padding(below, (0, 0, 0, 2)))


def _entry(group: str, name: str, root: ConfigRoot) -> Entry:
    chosen = component(group, name, root)
    describe: dict[str, Callable[..., Entry]]
    describe = {"criterion": _criterion, "allocation": _allocation, "pattern": _pattern}
    entry = describe[group](name, built(chosen))
    comments = _comments(group, name, root)
    for key, value in chosen.options.items():
        entry.more[f"{group}.{key}"] = "  ".join(filter(None, [as_typed(value), comments.get(key)]))
    target: Any = chosen.target
    entry.more["YAML"] = str(_yaml_of(group, name, root))
    entry.more["class"] = f"{target.__module__}.{target.__qualname__}"
    # What is built and, of a class, what of its own kind it is made from, contracts apart.
    apart = ("builtins", "abc", "typing", "torch", "swe_cli.contracts")
    classes = target.__mro__ if inspect.isclass(target) else ()
    sources = [cls for cls in classes if not cls.__module__.startswith(apart)] or [target]
    entry.paragraphs = [paragraph for source in sources for paragraph in _paragraphs(source)]
    return entry


def _criterion(name: str, criterion: Criterion) -> Entry:
    needs = tuple(criterion.needs)
    recorded = recorded_needs(needs)
    kinds = {STATISTICS: recorded, OF_GRADIENTS: GRADIENTS, OF_INPUTS: (*INPUTS, *BLOCKS)}
    judged = [kind for kind, known in kinds.items() if {*known} & {*needs}]
    ratios = {"weight": "all, scored once", "layer": "one run each", "mask": "none: finds its own"}
    drawn = criterion.granularity == "mask"
    columns = {
        "needs": "\n".join(needs) or NOTHING,
        "ratios": ratios[criterion.granularity],
        "weights": "updated" if criterion.updates_weights else "kept",
        "published": NOTHING if drawn else criterion.published,
    }
    asked = ",".join(statistic for statistic in recorded if statistic != ALWAYS_RECORDED)
    flag = f"swe train tracking.statistics=[{asked}] (swe sweep adds it by itself)"
    more = {"to train": flag if asked else "any training will do: swe train"}
    if len(recorded) < len(needs):
        more["to calibrate"] = "calibration.samples=… (of the training split)"
    more["to prune"] = f"swe prune {'' if drawn else '--ratio 0.5 '}criterion={name}"
    more["to prune"] += f" pattern={criterion.unit}" if criterion.unit else ""
    if not drawn and criterion.published != "global":
        more["as published"] = f"{more['to prune']} allocation=published"
    return Entry(name, f"Needs {' and '.join(judged) or 'nothing but the weights'}", columns, more)


def _allocation(name: str, allocation: Allocation) -> Entry:
    looks_at = ["scores", *(f"ranks by {criterion}" for criterion in allocation.consults)]
    looks_at += ["the loss, probed"] if allocation.probes else []
    columns = {
        "looks at": "\n".join(looks_at),
        "within": allocation.within,
        "takes": "ratio or rate" if allocation.takes_rate else "ratio",
    }
    if allocation.stands_for(Magnitude()) is not None:
        columns = dict.fromkeys(columns, "the criterion")
    return Entry(name, "", columns, {"to prune": f"swe prune --ratio 0.5 allocation={name}"})


def _pattern(name: str, pattern: Pattern) -> Entry:
    groups = "" if pattern.group is None else f", in groups of {pattern.group}"
    columns = {
        "ratio": "any" if pattern.ratio is None else f"fixed, {pattern.ratio:g}",
        "cuts": f"whole {pattern.unit}s" if pattern.unit else f"single weights{groups}",
        "stored model": "smaller" if pattern.unit else "same size",
    }
    amount = "--ratio 0.5 " if pattern.ratio is None else ""
    return Entry(name, "", columns, {"to prune": f"swe prune {amount}pattern={name}"})


def _paragraphs(source: Any) -> list[str]:
    """Its own docstring, reflowed; what is indented (a list, code) stays as it is."""
    text = inspect.cleandoc(source.__doc__ or "")
    if text.startswith(f"{getattr(source, '__name__', '')}("):
        return []  # a dataclass without a docstring is given its signature as one
    # Quotes help where a name stands in a sentence; an equation is one without.
    plain = _QUOTED.sub(lambda quoted: _NAME.sub(r"`\g<0>`", quoted[1]), text)
    return [
        block if "\n " in block or block.startswith(" ") else " ".join(block.split())
        for block in plain.split("\n\n")
        if block.strip()
    ]


def _yaml_of(group: str, name: str, root: ConfigRoot) -> Path:
    return next(path for path in root.yamls(group) if path.stem == name)


def _comments(group: str, name: str, root: ConfigRoot) -> dict[str, str]:
    """Option → the comment beside it, also of the YAML that this one builds on."""
    text = _yaml_of(group, name, root).read_text(encoding="utf-8")
    comments: dict[str, str] = {}
    for base in yaml.safe_load(text).get("defaults") or ():
        if base in root.options(group):
            comments |= _comments(group, base, root)
    return comments | {key: comment.strip() for key, comment in _OPTION.findall(text)}
