"""swe sweep, report: overrides → cells → rows; rows → table, figures, terminal."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import pandas as pd

from swe_cli.commands.shared import Page, listening
from swe_cli.config import ConfigRoot, component, did_you_mean
from swe_cli.contracts import Evidence
from swe_cli.errors import RunError, SweError, UsageError
from swe_cli.evaluation.loss import Measured
from swe_cli.experiments.model import ALWAYS_RECORDED
from swe_cli.experiments.spec import built
from swe_cli.experiments.sweep import Outcome, SweepPlan, plan_sweep, run_sweep, timings
from swe_cli.experiments.training import stored_training
from swe_cli.files import read_json, read_tensors, write_bytes, write_files, write_json
from swe_cli.ranking import Ranking, exact_count
from swe_cli.records import Row, Scalar
from swe_cli.report.against import compare_with, print_comparison, write_comparisons
from swe_cli.report.compare import check_declared, compared, present_declared, words_of
from swe_cli.report.figures import MANY, curve, weight_evolution, write_figure
from swe_cli.report.grid import grid
from swe_cli.report.html import Report, html, trainings
from swe_cli.report.quantities import LOSS, QUANTITIES
from swe_cli.report.summary import Summary, summarise, write_means
from swe_cli.report.tables import csv_bytes, frame, split_by_protocol, write
from swe_cli.report.terminal import print_summary
from swe_cli.report.text import count
from swe_cli.store import Run, list_runs, provenance, training_of
from swe_cli.training.tracker import gather

COMPARE = "compare.json"  # what a sweep declared before it ran
JUDGE, SHARE = "swe", 0.5  # of the figure of weights


def sweep(this: Page, *, refresh: bool = False) -> None:
    """Run what is missing of a sweep, then write and show its report.

    ``refresh``: what an older version measured less of is missing, too.
    """
    with listening(this.resume) as stop:
        plan = plan_sweep(this.tokens, this.root, this.results, refresh=refresh)
        run = Run(this.results / "runs" / f"sweep-{plan.name}-{plan.hash[:8]}")
        with run.hold(this.wait):
            declare(run, plan)
            run.begin({"identity": {"sweep": plan.hash}, "words": list(this.words)})
            for note in plan.notes:
                this.watcher.say(note)
            with this.watcher.showing():
                outcome = run_sweep(plan, this.watcher, stop, this.wait)
            cells = [{"cell": cell.hash, "axes": dict(cell.axes)} for cell in plan.cells]
            write_json(run.path / "cells.json", cells)
            write_json(run.path / "failed.json", [row.to_json() for row in outcome.failed])
            write_bytes(run.path / "timings.csv", csv_bytes(pd.DataFrame(timings(plan))))
            present(this, run.path, frame(outcome.rows), run.path)
            run.finish(["cells.json", "table.csv"], failed=len(outcome.failed))
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
        hint = "The other rows are safe. The same command tries the failed ones again."
        raise SweError(f"{failed} of {len(outcome.rows)} cells failed, first: {first}", hint)


def report(this: Page, *, folder: Path | None, against: str | None, as_html: bool) -> None:
    """Report a sweep, or every cut of a training; the newest sweep, unless named.

    ``against``: a criterion that every line is also compared with; ``as_html``: also write a page.
    """
    kinds: tuple[str, ...] = ("sweep", "train", "prune")
    if not this.tokens.runs:  # sweeps where there is one, else whatever has been cut
        swept = any(run.finished for run in list_runs(this.results, ("sweep",)))
        kinds = ("sweep",) if swept else ("prune", "train")
    otherwise = "Make some rows: swe sweep experiment=demo"
    run = training_of(this.chosen_run(kinds, "Reporting", otherwise=otherwise))
    table = _table(run, this.root)
    criteria = sorted(table["criterion"].dropna().unique())
    if against is not None and against not in criteria:
        question = did_you_mean(against, criteria)
        hint = f"Criteria of these rows: {', '.join(criteria) or 'none'}."
        raise UsageError(f"--against {against}: no row is of that criterion.{question}", hint)
    own = run.path if run.kind == "sweep" else run.path / "report"
    place = folder.expanduser() if folder else own
    # A run named by its path has its trainings beside it, wherever that is.
    written = present(this, place, table, run.path, against, as_html)
    if not this.quiet:
        this.print("\n".join(["", *map(str, written)]))


# Rows


def _table(run: Run, root: ConfigRoot) -> pd.DataFrame:
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
        rows = [Row.from_json(values) for values in (read_json(failed) if failed.is_file() else [])]
        for entry in cells:
            path = run.path.parent / "cells" / entry["cell"] / "row.json"
            if path.is_file():
                rows.append(replace(Row.from_json(read_json(path)), axes=entry["axes"]))
        if len(rows) < len(cells) and (run.path / "table.csv").is_file():
            return pd.read_csv(run.path / "table.csv")  # cells are gone
        hint = "Type the same swe sweep: it makes them"
    if not rows:
        raise RunError(f"{run.name} has no rows yet.", f"{hint}. Or name another run: swe runs")
    return frame(rows)


def _rows_of_training(run: Run, root: ConfigRoot) -> list[Row]:
    """Every cut of a training; what was set differently among them becomes an axis."""
    rows: list[Row] = []
    for path in sorted((run.path.parent / "cells").glob("*/row.json")):
        row = Row.from_json(read_json(path))
        config = read_json(path.with_name("cell.json"))
        same = row.training.rpartition("-")[2] == run.name.rpartition("-")[2]  # of another folder
        if same and "against" not in config:  # or judged by another training
            rows.append(replace(row, axes=_options(config, root)))
    keys = {key for row in rows for key in row.axes}
    varied = {key for key in keys if len({row.axes.get(key) for row in rows}) > 1}
    return [replace(r, axes={k: v for k, v in r.axes.items() if k in varied}) for r in rows]


def _options(config: Mapping[str, Any], root: ConfigRoot) -> dict[str, Scalar]:
    """``recovery.steps`` and the like: all of a cell that has no column of its own, and is not as
    its YAML has it (where it is a user's that is not at hand, all).
    """
    options: dict[str, Scalar] = {}
    for group, chosen in config.items():
        if isinstance(chosen, Mapping) and "name" in chosen:
            name = chosen["name"]
            at_hand = name in root.options(group)
            usual = component(group, name, root).describe() if at_hand else {"name": name}
            for key, value in chosen.items():
                if not isinstance(value, Mapping) and value != usual.get(key):
                    listed = isinstance(value, list)
                    options[f"{group}.{key}"] = ",".join(map(str, value)) if listed else value
    return options


# Tables and figures


def present(
    this: Page,
    folder: Path,
    table: pd.DataFrame,
    own: Path,
    against: str | None = None,
    as_html: bool = False,
) -> list[Path]:
    """Write the table and the figures of all rows into ``folder`` and print their summary.

    One set of figures per protocol: rows that were measured differently never share one. ``own``
    is the run's folder, beside which its trainings and cells lie; ``against``, what every line is
    then compared with; ``as_html``: also a page.
    """
    runs = own.parent
    judges = {
        name: built(component("criterion", name, this.root))
        for name in table["criterion"].dropna().unique()
        if name in this.root.options("criterion")  # or it is not at hand
    }
    published = {name: judge.published for name, judge in judges.items()}
    layerwise = {n: judge.published for n, judge in judges.items() if judge.granularity == "layer"}
    groups = split_by_protocol(table)
    summaries = [summarise(group, published) for group in groups]
    written = [*write(table, folder, layerwise), *write_means(summaries, folder)]
    for place, (group, summary) in enumerate(zip(groups, summaries, strict=True)):
        print_summary(this.console, summary)
        suffix = f"-{place + 1}" if len(summaries) > 1 else ""
        if not LOSS.drawable(summary.cuts):
            continue  # every cell failed, or none was pruned: their own errors say more
        figures = {
            quantity.name: curve(summary, quantity, elsewhere=f"grid{suffix}.png")
            for quantity in QUANTITIES
            if quantity.drawable(summary.cuts)
        }
        if len(summary.lines) > MANY:
            figures["grid"] = grid(summary)
        try:
            figures |= _weights(Run(runs / group["training"].iloc[0]), this.root)
        except SweError as error:  # the rows are there; only the trajectory cannot be drawn
            this.print(f"No weight figure: {error.message}")
        for name, figure in figures.items():
            written += write_figure(figure, folder / "figures", f"{name}{suffix}")
    if (own / COMPARE).is_file():
        written += present_declared(this.console, table, read_json(own / COMPARE), folder)
    if against is not None:
        windows = partial(_windows, runs / "cells")
        comparisons = [compare_with(summary, against, windows) for summary in summaries]
        for comparison in comparisons:
            print_comparison(this.console, comparison)
        written += write_comparisons(comparisons, folder)
    if as_html:
        content = html(_page(this, own, table, summaries)).encode()
        written += write_files(folder, {"report.html": content})
    return written


def _page(this: Page, own: Path, table: pd.DataFrame, summaries: Sequence[Summary]) -> Report:
    """What is known of a sweep or a training, for a browser."""
    words = read_json(own / "config.json").get("words")
    rows = shlex.join(["swe", "sweep", *words]) + " && " if words is not None else ""
    stored = read_json(own / COMPARE)["declared"] if (own / COMPARE).is_file() else None
    return Report(
        title=f"{summaries[0].model} on {summaries[0].data}: {own.name}",
        command=rows + shlex.join(["swe", "report", *(this.words or [own.name]), "--html"]),
        summaries=summaries,
        table=table,
        declared=stored and (f"Declared: {words_of(stored['line'])}", compared(table, stored)),
        training=trainings(own.parent, table["training"].dropna().unique()),
    )


def _weights(run: Run, root: ConfigRoot) -> dict[str, Any]:
    """The figure of a training's weights, judged by SWE at one half, where a sample was kept."""
    if not run.finished:
        raise SweError(f"{run.name} is gone; its weights cannot be drawn.")
    trained = stored_training(run, root, device="cpu").open()
    saved = run.tensors("trajectory.safetensors")
    if "sample/values" not in saved:
        return {}
    average, final = trained.trajectory[ALWAYS_RECORDED], trained.weights("final")
    # The sample is of all matrices that were tracked, frozen ones too.
    lens = partial(trained.model.prunable, which="linear")
    weights = lens({name: final[name] for name in average})
    evidence = Evidence(weights, {ALWAYS_RECORDED: lens(average)}, trained.seed)
    scores = built(component("criterion", JUDGE, root)).score(evidence)
    ranking = Ranking(scores, weights)
    masks = ranking.masks(ranking.lowest(exact_count(SHARE, ranking.total)))
    kept = gather({n: mask.float() for n, mask in masks.items()}, saved["sample/index"]) > 0.5
    steps, values = saved["sample/steps"].tolist(), saved["sample/values"].numpy()
    return {"weights": weight_evolution(steps, values, kept.numpy(), criterion=JUDGE, ratio=SHARE)}


@lru_cache(maxsize=256)
def _windows(cells: Path, config_hash: str) -> tuple[Measured, Measured]:
    """The losses of a cell's windows, after and before recovery."""
    path = cells / config_hash / "windows.safetensors"
    if not path.is_file():
        why = f"{path} is gone: without the windows of its cells nothing is compared."
        hint = "Put it back, or take out the cell's folder and type the same swe sweep again."
        raise RunError(why, hint)
    after = {name: tensor.numpy() for name, tensor in read_tensors(path).items()}
    # Stored only where recovery changed something.
    return after, after | {"nats": after.get("nats_before_recovery", after["nats"])}
