"""Which of many lines curves are drawn of, so that they can be told apart."""

import textwrap
from dataclasses import replace

from swe_cli.controls import PRUNED
from swe_cli.report.quantities import Quantity
from swe_cli.report.summary import Summary

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
    name = {line.points[0]["line"]: line.without_roles for line in summary.lines}
    if len(summary.lines) <= MANY or len(set(name.values())) <= most:
        return summary
    cuts = summary.points[summary.points["kind"] == PRUNED]
    amount = cuts["x"].where(cuts["by"] == "ratio", cuts["rate"].fillna(0.0))
    of_cut = cuts[quantity.mean].groupby([cuts["by"], amount])
    size = of_cut.transform("count")
    ahead = of_cut.rank(method="min", ascending=quantity.better < 0) - 1
    share = (ahead / size).where(size > 1)  # alone, it is neither best nor worst
    ranks = share.groupby(cuts["line"]).mean().fillna(1.0)
    best = list(
        ranks.groupby(ranks.index.map(name), sort=False).mean().sort_values(kind="stable").index
    )
    criterion = {line.without_roles: line.criterion for line in summary.lines}
    first = {criterion[group]: group for group in reversed(best)}  # the best of each
    order = [first[name] for name in ALWAYS if name in first]
    order += [group for group in best if group in first.values()] + best
    chosen = list(dict.fromkeys(order))[:most]
    drawn = summary.points["line"].map(name).isin(chosen) | (summary.points["kind"] != PRUNED)
    return replace(summary, points=summary.points[drawn])


def left_out(whole: Summary, drawn: Summary, elsewhere: str) -> list[str]:
    """A sentence on what is not drawn: a criterion by its name alone where none of its lines is."""
    shown = {line.label: line.criterion for line in drawn.lines}
    missing = [line for line in whole.lines if line.label not in shown]
    if not missing:
        return []
    names = dict.fromkeys(
        line.without_roles if line.criterion in shown.values() else line.criterion
        for line in missing
    )
    always = ", ".join(name for name in ALWAYS if name in shown.values())
    words = (
        f"{len(shown)} of {len(whole.lines)} lines: {always} and the best others, by mean rank "
        f"over all cuts. In {elsewhere} only: {', '.join(names)}."
    )
    return [textwrap.shorten(words, 500, placeholder=" …")]
