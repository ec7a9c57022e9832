"""Which of many lines curves are drawn of, so that they can be told apart."""

from collections.abc import Sequence
from dataclasses import replace

from swe_cli.reporting.quantity import Quantity
from swe_cli.reporting.summary import Line, Summary
from swe_cli.reporting.text import label

MANY = 8  # lines, beyond which not all are drawn
ALWAYS = ("swe", "magnitude", "random")
MOST, MOST_WITH_ROLES = 6, 4  # as many as there are colours; as dashes, where colour says the role


def selected(summary: Summary, quantity: Quantity) -> Summary:
    """``summary`` with few enough lines: of ``ALWAYS`` the best, then the best of the others.

    Best is the lowest mean rank over all cuts: a mean of losses would only tell which line explodes
    last. Lines that differ only in roles stay together; other criteria go before a second line of
    one that is drawn already.
    """
    most = MOST_WITH_ROLES if summary.several_roles else MOST
    groups: dict[str, list[Line]] = {}
    for line in summary.lines:
        groups.setdefault(without_roles(line), []).append(line)
    if len(summary.lines) <= MANY or len(groups) <= most:
        return summary
    ranks = _mean_ranks(summary.lines, quantity)
    mean = {name: sum(ranks[line.label] for line in of) / len(of) for name, of in groups.items()}
    best = sorted(groups, key=mean.__getitem__)
    criterion = {group: lines[0].criterion for group, lines in groups.items()}
    first = {criterion[group]: group for group in reversed(best)}  # the best of each
    wanted = [first[name] for name in ALWAYS if name in first]
    wanted += [group for group in best if group in first.values()] + best
    kept = list(dict.fromkeys(wanted))[:most]
    return replace(
        summary, lines=tuple(line for line in summary.lines if without_roles(line) in kept)
    )


def left_out(summary: Summary, drawn: Summary) -> str:
    """The lines that are not drawn: a criterion by its name alone where none of its is."""
    shown = {line.criterion for line in drawn.lines}
    missing = [line for line in summary.lines if line not in drawn.lines]
    names = [without_roles(line) if line.criterion in shown else line.criterion for line in missing]
    return ", ".join(dict.fromkeys(names))


def without_roles(line: Line) -> str:
    """What a line's label says beside its roles."""
    parts = [part for part in line.parts if part != f"roles {line.roles}"]
    return label(line.criterion, parts)


def _mean_ranks(lines: Sequence[Line], quantity: Quantity) -> dict[str, float]:
    """Label → mean place among the lines that were cut as much; last where nothing is measured."""
    found: dict[tuple[str, float], list[tuple[float, str]]] = {}
    for line in lines:
        for point in line.points:
            mean = quantity.read(point).mean
            if mean:
                cut = (line.by, point.x if line.by == "ratio" else point.rate or 0.0)
                found.setdefault(cut, []).append((-quantity.better * mean.mean, line.label))
    places: dict[str, list[float]] = {line.label: [] for line in lines}
    for values in found.values():
        if len(values) == 1:
            continue  # alone, it is neither best nor worst
        for value, name in values:
            places[name].append(sum(other < value for other, _ in values) / len(values))
    return {name: sum(of) / len(of) if of else 1.0 for name, of in places.items()}
