"""The table of means as others take it: every column for programs, lines × cuts for people."""

from collections.abc import Iterator, Sequence
from html import escape

import pandas as pd

from swe_cli.report.quantities import QUANTITIES, Quantity, bounds, sign
from swe_cli.report.summary import Point, Summary, means
from swe_cli.report.tables import csv_bytes
from swe_cli.report.text import MARKS, NOTHING, count, exact, markdown_table

TEX = {"±": r"$\pm$", "−": "$-$", "▼": r"$\downarrow$", "▲": r"$\uparrow$"}


def formatted(summaries: Sequence[Summary], form: str) -> str:
    """``csv``: all means; ``md``, ``html``, ``latex`` (booktabs): a table for every quantity."""
    if form == "csv":
        return csv_bytes(means(summaries)).decode().rstrip()
    return "\n\n".join(part for of in summaries for part in _tables(of, form))


def _tables(summary: Summary, form: str) -> Iterator[str]:
    """Mean ± half of the interval, line by cut; what nothing was cut from stands at 0. Then the
    same of differences to dense, paired, with their marks.
    """
    points = [*summary.controls, *summary.cuts]
    shown = [(q, column) for q in QUANTITIES for column in (q.mean, q.delta)]
    shown = [(q, column) for q, column in shown if any(p[column] is not None for p in points)]
    for quantity, column in shown:
        cells, cuts = dict[str, dict[str, str]](), dict[str, tuple[bool, float]]()
        for point in points:
            by_rate = point["rate"] is not None
            amount = point["rate"] if by_rate else point["x"]
            if amount is not None:  # or it was to find its own sparsity, and failed
                cut = f"{'rate ' * by_rate}{exact(amount)}"
                cuts[cut] = by_rate, amount
                cells.setdefault(point["label"], {})[cut] = _spelt(point, quantity, column)
        table = pd.DataFrame.from_dict(cells, orient="index").fillna(NOTHING)
        table = table.reindex(columns=sorted(cuts, key=cuts.__getitem__))
        over = f", ± half of the {summary.intervals}" if summary.intervals else ""
        alone = "; one seed: this training only" if len(summary.seeds) == 1 else ""
        against = ", less dense's (paired)" if column == quantity.delta else ""
        head = f"{quantity.axis}{against}{over}: {summary.model} on {summary.data}, "
        head += f"{count(len(summary.seeds), 'seed')}{alone}; protocol {summary.fingerprint}"
        if form == "latex":
            layout = "l" + "r" * len(table.columns)
            text = table.to_latex(escape=True, column_format=layout)
            for plain, spelt in TEX.items():
                text = text.replace(plain, spelt)
            yield f"% {head}\n% \\usepackage{{booktabs}}\n{text.rstrip()}"
        elif form == "html":
            yield f"<p>{escape(head)}</p>\n{table.to_html(border=0)}"
        else:
            rows = [["", *table], *([name, *of] for name, *of in table.itertuples())]
            yield f"{head}\n\n{markdown_table(rows, left=1)}"


def _spelt(point: Point, quantity: Quantity, column: str) -> str:
    mean, low, high = (point[name] for name in (column, *bounds(column)))
    if mean is None:
        return NOTHING
    spec = ".1f" if quantity.percent else ".3f"
    half = "" if low is None else f" ± {quantity.scale * (high - low) / 2:{spec}}"
    if column == quantity.mean:
        return f"{quantity.scale * mean:{spec}}{half}"
    mark = MARKS[sign(point, column)]
    return f"{quantity.scale * mean:+{spec}}{half} {mark}".replace("-", "−").rstrip()
