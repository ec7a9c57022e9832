"""swe sweep --plan: what a sweep would do, what is there of it, and about how long it takes."""

from collections import defaultdict
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from swe_cli.commands.shared import Page
from swe_cli.controls import PRUNED
from swe_cli.experiments.sweep import SweepPlan
from swe_cli.files import read_json
from swe_cli.report.console import print_table, say
from swe_cli.report.text import count
from swe_cli.store import list_runs

SAMPLE = 300  # cells whose times are looked at
NOT_RUN = ("score", "timing")  # charged by another cell; only where costs are measured


def show_plan(this: Page, plan: SweepPlan) -> None:
    """Print trainings, controls and cuts by criterion; nothing is run or written."""
    if "slots" not in vars(plan.launcher):  # else it knows beforehand
        plan.launcher.start(plan.threads)
        plan.launcher.close(now=True)
    known, speeds = _seconds(this.results / "runs" / "cells"), _speeds(this.results)
    kinds: dict[str, list[tuple[bool, float | None]]] = defaultdict(list)
    for of in plan.trainings:
        speed = speeds.get(of.label)
        seconds = speed and speed * of.composed["training"].instance.steps
        kinds["trainings"].append((of.done(), seconds))
    for cell in plan.cells:
        row = cell.new_row(fingerprint="", axes=cell.axes)
        name = f"cuts by {cell.spec.method_name}" if cell.kind == PRUNED else "controls"
        kinds[name].append((cell.done(), known.get(_kind(row.columns()), known.get(row.kind))))
    rows, found, left = [], list[dict[str, Any]](), 0.0
    for name, jobs in kinds.items():
        missing = [seconds for done, seconds in jobs if not done]
        about = None if None in missing else sum(seconds or 0.0 for seconds in missing)
        left += about or 0.0
        found.append({"jobs": name, "there": len(jobs) - len(missing), "missing": len(missing)})
        found[-1]["seconds"] = about
        spelt = "unknown" if about is None else f"{about:,.0f}"
        rows.append([name, str(len(jobs) - len(missing)), str(len(missing)), spelt])
    slots = plan.launcher.slots
    said = f"{count(len(plan.trainings), 'training')}, {count(len(plan.cells), 'cell')}; "
    said += f"{count(slots, 'worker')} of {count(plan.threads, 'thread')}"
    say(this.console, f"sweep-{plan.name}-{plan.hash[:8]}: {said}", "bold")
    print_table(this.console, ["", "there", "to run", "about s"], rows)
    unknown = any(row[-1] == "unknown" for row in rows)
    more = " without the unknown, of whose kind nothing was measured here" if unknown else ""
    say(this.console, f"About {left / slots / 60:.1f} minutes{more}. Nothing was run.")
    this.result({"sweep": plan.hash, "threads": plan.threads, "workers": slots, "jobs": found})


def _seconds(cells: Path) -> dict[object, float]:
    """What cells took, by their kind: the median of those that were written last."""
    took: dict[object, list[float]] = defaultdict(list)
    newest = sorted(cells.glob("*/timing.json"), key=lambda path: -path.stat().st_mtime)
    for path in islice(newest, SAMPLE):
        row, spent = read_json(path.with_name("row.json")), read_json(path)["seconds"]
        seconds = sum(of for stage, of in spent.items() if stage not in NOT_RUN)
        for kind in (_kind(row), row["kind"]):
            took[kind].append(seconds)
    return {kind: median(of) for kind, of in took.items()}


def _kind(row: Mapping[str, Any]) -> object:
    return row["model"], row["kind"], row["criterion"], row["recovery"]


def _speeds(results: Path) -> dict[str, float]:
    """Seconds a step, by what a model is called."""
    found: dict[str, list[float]] = defaultdict(list)
    for run in islice(list_runs(results, ("train",)), SAMPLE):
        if run.finished and (speed := run.manifest.get("seconds_per_step")):
            found[run.name.removeprefix("train-").rpartition("-")[0]].append(speed)
    return {label: median(of) for label, of in found.items()}
