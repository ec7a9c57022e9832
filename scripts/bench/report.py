"""Bench 11: tables, summary and figures of results/criteria_gpt.csv's rows.

    python scripts/bench/report.py

Prints seconds, imports apart. Also runs on the checkout before reports were made of frames.
"""

import io
import tempfile
import time
from pathlib import Path

import pandas as pd
from rich.console import Console

table = pd.read_csv("results/criteria_gpt.csv")
console = Console(file=io.StringIO(), width=80)
try:
    from swe_cli.files import write_bytes
    from swe_cli.report.figures import curve, write_figure
    from swe_cli.report.grid import grid
    from swe_cli.report.quantities import LOSS
    from swe_cli.report.summary import means, summarise
    from swe_cli.report.tables import csv_bytes, write
    from swe_cli.report.terminal import print_summary

    def report(folder: Path) -> None:
        write(table, folder)
        summary = summarise(table)
        write_bytes(folder / "summary.csv", csv_bytes(means([summary])))
        print_summary(console, summary)
        write_figure(curve(summary, LOSS, elsewhere="grid.png"), folder, "loss")
        write_figure(grid(summary), folder, "grid")

except ImportError:
    from swe_cli.reporting.aggregate import summarise
    from swe_cli.reporting.figures import write_figure
    from swe_cli.reporting.grid_figure import grid_figure
    from swe_cli.reporting.loss_figure import loss_figure
    from swe_cli.reporting.table import frame, write
    from swe_cli.reporting.terminal import print_summary

    from swe_cli.records import Row

    whole = table.astype(object).where(table.notna(), None)
    rows = [Row.from_json(values) for values in whole.to_dict("records")]

    def report(folder: Path) -> None:
        write(frame(rows), folder)
        summary = summarise(rows)
        print_summary(console, summary)
        write_figure(loss_figure(summary, elsewhere="grid.png"), folder, "loss")
        write_figure(grid_figure(summary), folder, "grid")


with tempfile.TemporaryDirectory() as folder:
    started = time.perf_counter()
    report(Path(folder))
    print(time.perf_counter() - started)
