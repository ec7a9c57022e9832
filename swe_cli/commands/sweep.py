"""swe sweep: overrides → cells → trainings, cuts, rows → report."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from swe_cli.commands.present import present
from swe_cli.commands.shared import Stop, Watcher, config_root, output, print_config, typed
from swe_cli.compose import compose, read_tokens
from swe_cli.errors import SweError, UsageError
from swe_cli.files import write_bytes, write_json
from swe_cli.reporting.text import count
from swe_cli.runs import Run
from swe_cli.sweeps.build import results_root
from swe_cli.sweeps.execute import Outcome, execute, timings
from swe_cli.sweeps.plan import SweepPlan, plan_sweep, shared_overrides


def sweep(
    words: Sequence[str], config_dir: Path | None, *, wait: bool, show: bool, quiet: bool
) -> None:
    """Run what is missing of a sweep, then write and show its report."""
    root, tokens = config_root(config_dir), read_tokens(words)
    if tokens.runs:
        raise UsageError(
            f"swe sweep takes no run; {tokens.runs[0]!r} is left over.", "Overrides: key=value."
        )
    composed = compose("sweep", shared_overrides(tokens, root), root)
    console = output()
    if show:
        print_config(console, composed)
        return
    results = results_root(composed.values["results_dir"])
    watcher = Watcher(quiet)
    resume = typed("sweep", words, config_dir)
    with Stop(resume).listening() as stop:
        plan = plan_sweep(tokens, root, results)
        run = Run(results / "runs" / f"sweep-{plan.name}-{plan.hash[:8]}")
        with run.hold(wait):
            run.begin({"identity": {"sweep": plan.hash}, "words": list(words)})
            for note in plan.notes:
                watcher.say(note)
            with watcher.showing():
                outcome = execute(plan, results, watcher, stop, resume=resume, wait=wait)
            _record(run, plan, outcome, results)
            present(console, run.path, outcome.rows, root, results)
            run.finish(["cells.json", "table.csv"], failed=len(outcome.failed))
    _print_outcome(console, run, outcome)


def _record(run: Run, plan: SweepPlan, outcome: Outcome, results: Path) -> None:
    cells = [{"cell": p.cell.hash, "axes": dict(p.axes)} for p in plan.cells]
    write_json(run.path / "cells.json", cells)
    write_json(run.path / "failed.json", [row.to_json() for row in outcome.failed])
    lines = timings(plan, results)
    columns = list(dict.fromkeys(key for line in lines for key in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_bytes(run.path / "timings.csv", text.getvalue().encode())


def _print_outcome(console: Console, run: Run, outcome: Outcome) -> None:
    """What ran, and where its time went. Raises SweError where cells failed."""
    console.print()
    console.print(
        f"{run.name}: {outcome.trained} trained, {count(outcome.ran, 'cell')} run, "
        f"{outcome.reused} reused, {outcome.seconds:.0f} s"
    )
    stages = [f"{stage} {seconds:.0f} s" for stage, seconds in outcome.stages.items()]
    if stages:
        console.print("  " + ", ".join(stages))
    console.print(f"  {run.path}", markup=False, soft_wrap=True)
    if outcome.failed:
        first = outcome.failed[0]
        raise SweError(
            f"{len(outcome.failed)} of {len(outcome.rows)} cells failed, first: {first.error}",
            "The other rows are safe. The same command tries the failed ones again.",
        )
