"""swe sweep, report: overrides → cells → rows; rows → table, figures, terminal."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from swe_cli.commands.elsewhere import fetched
from swe_cli.commands.evidence import Beside, judged, paid_back
from swe_cli.commands.kept import keep
from swe_cli.commands.plan import show_plan
from swe_cli.commands.shared import Page, listening
from swe_cli.config import ConfigRoot, component, did_you_mean
from swe_cli.controls import DENSE
from swe_cli.errors import RunError, SweError, UsageError
from swe_cli.experiments.cell import config_of, row_of
from swe_cli.experiments.jobs import Outcome, run_sweep
from swe_cli.experiments.shown import shown
from swe_cli.experiments.spec import built
from swe_cli.experiments.sweep import SweepPlan, plan_sweep
from swe_cli.files import read_json, read_or_none, write_bytes, write_json
from swe_cli.records import Row, Scalar
from swe_cli.report.against import present_against
from swe_cli.report.answer import answer
from swe_cli.report.compare import check_declared, compared, present_declared, words_of
from swe_cli.report.console import say
from swe_cli.report.costs import TIMED
from swe_cli.report.figures import MANY, curve, weight_figure, write_figure
from swe_cli.report.formats import formatted
from swe_cli.report.grid import grid
from swe_cli.report.html import Report, html, trainings
from swe_cli.report.quantities import LOSS, QUANTITIES
from swe_cli.report.slices import sentences
from swe_cli.report.summary import Summary, means, summarise
from swe_cli.report.tables import csv_bytes, frame, records, split_by_protocol, write
from swe_cli.report.terminal import print_summary
from swe_cli.report.text import count
from swe_cli.store import Run, list_runs, provenance, training_of

COMPARE = "compare.json"  # what a sweep declared before it ran
HARMS = 2  # sentences on what was hurt, and on what is faster, in a terminal


def sweep(this: Page, *, refresh: bool = False, plan: bool = False) -> None:
    """Run what is missing of a sweep, then write and show its report.

    ``refresh``: what an older version measured less of is missing, too. ``plan``: say what is.
    """
    if plan:
        show_plan(this, plan_sweep(this.tokens, this.root, this.results, refresh=refresh))
        return
    with listening(this.resume) as stop:
        todo = plan_sweep(this.tokens, this.root, this.results, refresh=refresh)
        run = Run(this.results / "runs" / f"sweep-{todo.name}-{todo.hash[:8]}")
        with run.hold(this.wait):
            declare(run, todo)
            run.begin({"identity": {"sweep": todo.hash}, "words": list(this.words)})
            for note in todo.notes:
                this.watcher.say(note)
            with this.watcher.showing():
                outcome = run_sweep(todo, this.watcher, stop, this.wait)
            cells = [{"cell": cell.hash, "axes": dict(cell.axes)} for cell in todo.cells]
            write_json(run.path / "cells.json", cells)
            write_json(run.path / "failed.json", [row.to_json() for row in outcome.failed])
            at = run.path
            keep(this, at, at, "sweep", lambda: present(this, at, frame(outcome.rows), at))
            with shown(this.composed["tracker"], run):  # its table
                pass
            run.finish(["cells.json", "table.csv"], failed=len(outcome.failed))
    rows = records(frame(outcome.rows)) if this.form else []
    this.result({"run": run.name, "path": run.path, "failed": len(outcome.failed), "rows": rows})
    _print_outcome(this, run, outcome)


def declare(run: Run, plan: SweepPlan) -> None:
    """Keep the comparison that a sweep declares, with how much of it had been measured by then.

    Raises UsageError for one that its rows cannot answer, and for another than it declared before.
    """
    if plan.compare is None:
        return
    rows = (cell.new_row(fingerprint="", axes=cell.axes) for cell in plan.cells)
    compared = check_declared(frame(rows), plan.compare)
    cuts = [cell for cell in plan.cells if cell.hash in compared]
    path = run.path / COMPARE
    if not path.is_file():
        how_far = {"done": sum((c.folder / "row.json").is_file() for c in cuts), "cells": len(cuts)}
        write_json(path, {"declared": plan.compare, **how_far, **provenance()})
    elif (before := read_json(path))["declared"] != plan.compare:
        why = f"{run.name} declared another comparison, {before['written'][:10]}."
        hint = "Compare that; or explore, without compare: swe report --against CRITERION"
        raise UsageError(why, hint)


def _print_outcome(this: Page, run: Run, outcome: Outcome) -> None:
    """What ran, and where its time went. Raises SweError where cells failed."""
    ran = f"{outcome.trained} trained, {count(outcome.ran, 'cell')} run, {outcome.reused} reused"
    this.print(f"\n{run.name}: {ran}, {outcome.seconds:.0f} s")
    if outcome.stages:
        stages = [f"{stage} {seconds:.0f} s" for stage, seconds in outcome.stages.items()]
        this.print(f"  {', '.join(stages)}")
    this.print(f"  {run.path}")
    if outcome.failed:
        failed, first = len(outcome.failed), outcome.failed[0].error
        hint = f"The others are safe. What failed, and only that, is run by: {this.again}"
        raise SweError(f"{failed} of {len(outcome.rows)} cells failed, first: {first}", hint)


def report(
    this: Page, *, folder: Path | None, against: str | None, as_html: bool, **told: Any
) -> None:
    """Report a sweep, or every cut of a training; the newest sweep, unless named.

    ``against``: a criterion that every line is then also compared with. ``as_html``: one page of it
    all, too; ``told``: options of ``print_summary``. A sweep may be an address (``s3://…``): what
    the report needs is copied, and it goes to ``results_dir``'s ``reports``, or to ``folder``.
    """
    if "://" in (url := next(iter(this.tokens.runs), "")):
        with TemporaryDirectory(prefix="swe-") as copied:
            run = fetched(url, Path(copied))
            place = folder.expanduser() if folder else this.results / "reports" / run.name
            _report(this, run, place, against, as_html, told)
        return
    kinds: tuple[str, ...] = ("sweep", "train", "prune")
    if not this.tokens.runs:  # sweeps where there is one, else whatever has been cut
        swept = any(run.finished for run in list_runs(this.results, ("sweep",)))
        kinds = ("sweep",) if swept else ("prune", "train")
    otherwise = "Make some rows: swe sweep experiment=demo"
    run = training_of(this.chosen_run(kinds, "Reporting", otherwise=otherwise))
    own = run.path if run.kind == "sweep" else run.path / "report"
    folder = folder.expanduser() if folder else own
    make = partial(_report, this, run, folder, against, as_html, told)
    keep(this, run.path, folder, {"against": against, "html": as_html, **told}, make)


def _report(
    this: Page, run: Run, place: Path, against: str | None, as_html: bool, told: Mapping[str, Any]
) -> None:
    table = table_of(run, this.root)
    criteria = sorted(table["criterion"].dropna().unique())
    if against is not None and against not in criteria:
        question = did_you_mean(against, criteria)
        hint = f"Criteria of these rows: {', '.join(criteria) or 'none'}."
        raise UsageError(f"--against {against}: no row is of that criterion.{question}", hint)
    # A run named by its path has its trainings beside it, wherever that is.
    present(this, place, table, run.path, against, as_html=as_html, **told)
    if not this.quiet:
        this.print(f"\nTables and figures: {place / 'report.html' if as_html else place}")
    if this.form is not None:
        summaries = [summarise(group) for group in split_by_protocol(table)]
        this.result(records(means(summaries)))
        if this.form != "json":
            sys.stdout.write(formatted(summaries, this.form) + "\n")


# Rows


def table_of(run: Run, root: ConfigRoot) -> pd.DataFrame:
    """All rows of a sweep or of a training. RunError, with what to type, where there is none."""
    if run.kind != "sweep":
        rows = _rows_of_training(run, root)
        hint = f"Cut it: swe prune {run.name} --ratio 0.5"
    elif not (run.path / "cells.json").is_file():
        again = "Wait for it" if run.holder() else "Type the same swe sweep: it goes on"
        hint = f"{again}. Or report what its trainings have so far: swe report train-…"
        raise RunError(f"{run.name} is {run.status}.", hint)
    else:
        cells, failed = read_json(run.path / "cells.json"), run.path / "failed.json"
        lost = [Row.from_json(values) for values in (read_json(failed) if failed.is_file() else [])]
        rows = list[Row]()
        for entry in cells:
            path = run.path.parent / "cells" / entry["cell"] / "row.json"
            if path.is_file() and (row := read_or_none(row_of, path.parent)) is not None:
                rows.append(replace(row, axes=entry["axes"]))
        done = {row.config_hash for row in rows}  # perhaps by another sweep since
        rows += [row for row in lost if row.config_hash not in done]
        if len(rows) < len(cells) and (run.path / "table.csv").is_file():
            return pd.read_csv(run.path / "table.csv")  # cells are gone
        hint = "Type the same swe sweep: it makes them"
    if not rows:
        raise RunError(f"{run.name} has no rows yet.", f"{hint}. Or name another run: swe runs")
    return frame(rows)


def _rows_of_training(run: Run, root: ConfigRoot) -> list[Row]:
    """Every cut of a training; what was set differently among them becomes an axis."""
    found: list[tuple[Row, dict[str, Scalar]]] = []
    keys: set[str] = set()
    for path in sorted((run.path.parent / "cells").glob("*/row.json")):
        row, config = read_or_none(row_of, path.parent), read_or_none(config_of, path.parent)
        if row is None or config is None:
            continue
        same = row.training.rpartition("-")[2] == run.name.rpartition("-")[2]  # of another folder
        if same and "against" not in config:  # or judged by another training
            keys |= options_of(config, root).keys()
            found.append((row, _options(config)))
    varied = [key for key in keys if len({of.get(key) for _, of in found}) > 1]
    return [replace(row, axes={k: of[k] for k in varied if k in of}) for row, of in found]


def options_of(config: Mapping[str, Any], root: ConfigRoot) -> dict[str, Scalar]:
    """``recovery.steps`` and the like: all of a cell that has no column of its own, and is not as
    its YAML has it (where it is a user's that is not at hand, all).
    """
    usual: dict[str, Any] = {}
    for group, chosen in config.items():
        if isinstance(chosen, Mapping) and chosen.get("name") in root.options(group):
            usual[group] = component(group, chosen["name"], root).describe()
    there = _options(usual)
    return {key: of for key, of in _options(config).items() if of != there.get(key)}


def _options(config: Mapping[str, Any]) -> dict[str, Scalar]:
    """Dotted key → value of what was chosen of each group, a list as it is typed."""
    return {
        f"{group}.{key}": ",".join(map(str, of)) if isinstance(of, list) else of
        for group, chosen in config.items()
        if isinstance(chosen, Mapping) and "name" in chosen
        for key, of in chosen.items()
        if key != "name" and not isinstance(of, Mapping)
    }


# Tables and figures


def present(
    this: Page,
    folder: Path,
    table: pd.DataFrame,
    own: Path,
    against: str | None = None,
    *,
    as_html: bool = False,
    **told: Any,
) -> None:
    """Write the table and the figures of all rows into ``folder`` and print their summary.

    One set of figures per protocol: rows that were measured differently never share one. ``own``
    is the run's folder, beside which its trainings and cells lie; ``against``, what every line is
    then compared with; ``as_html``: one page of all of it, too; ``told``: options of
    ``print_summary``.
    """
    beside = Beside(own.parent, this.root)
    judges = {
        name: built(component("criterion", name, this.root))
        for name in table["criterion"].dropna().unique()
        if name in this.root.options("criterion")  # or it is not at hand
    }
    published = {name: judge.published for name, judge in judges.items()}
    layerwise = {n: judge.published for n, judge in judges.items() if judge.granularity == "layer"}
    groups = split_by_protocol(table)
    summaries = [summarise(group, published) for group in groups]
    write(table, folder, layerwise)
    write_bytes(folder / "summary.csv", csv_bytes(means(summaries)))
    costs = beside.costs(table, **this.composed.values["energy"])
    write_bytes(folder / "costs.csv", csv_bytes(costs))
    looked: list[dict[str, Any]] = []
    suffixes = endings([summary.data for summary in summaries])
    for summary, suffix in zip(summaries, suffixes, strict=True):
        print_summary(this.console, summary, beside.both, **told)
        if LOSS.drawable(summary.cuts):  # else every cell failed, or none was pruned
            looked.append(_look_into(this, beside, summary, costs, folder, suffix))
    declared = read_json(own / COMPARE) if (own / COMPARE).is_file() else None
    if declared:
        present_declared(this.console, table, declared, folder)
    if against is not None:
        present_against(this.console, summaries, against, beside.both, folder)
    if as_html:
        parts: dict[str, Any] = {}
        for name in ("lives", "hurt", "layers"):
            found = [of[name] for of in looked if len(of[name])]
            parts |= {name: pd.concat(found)} if found else {}
        for name in ("hurt_sentences", "ledger"):
            parts[name] = [sentence for of in looked for sentence in of[name]]
        if declared:
            line = declared["declared"]
            parts["declared"] = f"Declared: {words_of(line['line'])}", compared(table, line)
        by_cell = costs.set_index("config_hash")
        timed = {n: table["config_hash"].map(by_cell[n]) for n in TIMED if n in by_cell}
        words = Run(own).config.get("words")
        rows = _typed("sweep", words) + " && " if words is not None else ""
        page = Report(
            title=f"{summaries[0].model} on {summaries[0].data}: {own.name}",
            command=rows + _typed("report", [*this.words, "--html"]),
            summaries=[summary.thinned() for summary in summaries],
            table=table.assign(**timed),
            sentences=[said for summary in summaries for said in answer(summary, beside.both)],
            training=trainings(own.parent, table["training"].dropna().unique()),
            **parts,
        )
        write_bytes(folder / "report.html", html(page).encode())


def _look_into(
    this: Page, beside: Beside, summary: Summary, costs: pd.DataFrame, folder: Path, suffix: str
) -> dict[str, Any]:
    """Draw a summary, and print what its cuts hurt and what they save: parts of a ``Report``. What
    is missing of them is said where it would have stood.
    """
    drawn = summary.thinned()
    figures = {"grid": grid(drawn)} if len(summary.lines) > MANY else {}
    for quantity in (q for q in QUANTITIES if q.drawable(summary.cuts)):
        try:
            figures[quantity.name] = curve(drawn, quantity, elsewhere=f"grid{suffix}.png")
        except SweError as error:  # cuts that were compared with nothing, or only exploded
            this.print(error.message)
    line, lives, harm, told = judged(summary), pd.DataFrame(), pd.DataFrame(), list[str]()
    try:
        lives = beside.lives(next(iter(summary.cuts[0]["cells"].values()))["training"])
        figures |= {"weights": weight_figure(lives)} if len(lives) else {}
    except SweError as error:  # the rows are there; only the trajectory cannot be drawn
        this.print(f"No weight figure: {error.message}")
        this.console.record &= type(error) is SweError  # others may be mended elsewhere
    for name, figure in figures.items():
        write_figure(figure, folder / "figures", f"{name}{suffix}")
    try:
        harm = beside.hurt(line, summary)
        write_bytes(folder / f"hurt{suffix}.csv", csv_bytes(harm))
        harm, told = harm[harm["against"] == DENSE.kind].assign(line=line.label), sentences(harm)
    except SweError as error:
        say(this.console, f"What it hurt is not told: {error.message}", "dim")
        this.console.record &= type(error) is SweError
    ledger = paid_back(summary, costs)
    if told:
        say(this.console, f"What {line.label} hurts, nats a token, after Holm:", "bold")
    for sentence in (*told[:HARMS], *ledger[:HARMS]):
        say(this.console, sentence)
    found = {"lives": lives, "hurt": harm, "layers": beside.layers(line)}
    return {**found, "hurt_sentences": told, "ledger": ledger}


def _typed(command: str, words: Sequence[str]) -> str:
    """As one types it, wherever results are."""
    return shlex.join(["swe", command, *(w for w in words if not w.startswith("results_dir="))])


def endings(data: Sequence[str]) -> list[str]:
    """What tells the figures of each protocol apart: the data set, then a number."""
    numbers = [data[: place + 1].count(name) for place, name in enumerate(data)]
    told = [f"-{n}" * (data.count(name) > 1) for name, n in zip(data, numbers, strict=True)]
    return [f"-{name}{n}" * (len(data) > 1) for name, n in zip(data, told, strict=True)]
