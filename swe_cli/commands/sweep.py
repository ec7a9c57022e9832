"""swe sweep: overrides → cells → trainings, cuts, rows → report."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from swe_cli.commands.present import present
from swe_cli.commands.progress import Stop, Watcher
from swe_cli.commands.shared import Page, config_root, output, typed
from swe_cli.config import compose, read_tokens
from swe_cli.errors import SweError, UsageError
from swe_cli.experiments.plan import SweepPlan, plan_sweep, preview, shared_overrides
from swe_cli.experiments.run import Outcome, run_sweep, timings
from swe_cli.files import write_bytes, write_json
from swe_cli.report.tables import frame
from swe_cli.report.text import count
from swe_cli.store import Run


def sweep(
    words: Sequence[str], config_dir: Path | None, *, wait: bool, show: bool, quiet: bool
) -> None:
    """Run what is missing of a sweep, then write and show its report."""
    root, tokens = config_root(config_dir), read_tokens(words)
    if tokens.runs:
        raise UsageError(
            f"swe sweep takes no run; {tokens.runs[0]!r} is left over.", "Overrides: key=value."
        )
    if show:
        Page(root, tokens, preview(tokens, root), output()).print_config()
        return
    composed = compose("sweep", shared_overrides(tokens, root), root)
    this = Page(root, tokens, composed, output())
    watcher, resume = Watcher(quiet), typed("sweep", words, config_dir)
    with Stop(resume).listening() as stop:
        plan = plan_sweep(tokens, root, this.results)
        run = Run(this.results / "runs" / f"sweep-{plan.name}-{plan.hash[:8]}")
        with run.hold(wait):
            run.begin({"identity": {"sweep": plan.hash}, "words": list(words)})
            for note in plan.notes:
                watcher.say(note)
            with watcher.showing():
                outcome = run_sweep(plan, watcher, stop, resume=resume, wait=wait)
            _record(run, plan, outcome)
            present(this.console, run.path, frame(outcome.rows), root, run.path.parent)
            run.finish(["cells.json", "table.csv"], failed=len(outcome.failed))
    _print_outcome(this.console, run, outcome)


def _record(run: Run, plan: SweepPlan, outcome: Outcome) -> None:
    cells = [{"cell": p.cell.hash, "axes": dict(p.axes)} for p in plan.cells]
    write_json(run.path / "cells.json", cells)
    write_json(run.path / "failed.json", [row.to_json() for row in outcome.failed])
    lines = pd.DataFrame(timings(plan)).to_csv(index=False, lineterminator="\n")
    write_bytes(run.path / "timings.csv", lines.encode())


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
