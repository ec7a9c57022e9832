"""swe sweep: overrides → cells → trainings, cuts, rows → report."""

import pandas as pd

from swe_cli.commands.progress import listening
from swe_cli.commands.report import present
from swe_cli.commands.shared import Page
from swe_cli.errors import SweError
from swe_cli.experiments.sweep import Outcome, plan_sweep, run_sweep, timings
from swe_cli.files import write_bytes, write_json
from swe_cli.report.tables import frame
from swe_cli.report.text import count
from swe_cli.store import Run


def sweep(this: Page) -> None:
    """Run what is missing of a sweep, then write and show its report."""
    with listening(this.resume) as stop:
        plan = plan_sweep(this.tokens, this.root, this.results)
        run = Run(this.results / "runs" / f"sweep-{plan.name}-{plan.hash[:8]}")
        with run.hold(this.wait):
            run.begin({"identity": {"sweep": plan.hash}, "words": list(this.words)})
            for note in plan.notes:
                this.watcher.say(note)
            with this.watcher.showing():
                outcome = run_sweep(plan, this.watcher, stop, this.wait)
            cells = [{"cell": cell.hash, "axes": dict(cell.axes)} for cell in plan.cells]
            write_json(run.path / "cells.json", cells)
            write_json(run.path / "failed.json", [row.to_json() for row in outcome.failed])
            lines = pd.DataFrame(timings(plan)).to_csv(index=False, lineterminator="\n")
            write_bytes(run.path / "timings.csv", lines.encode())
            present(this, run.path, frame(outcome.rows), run.path.parent)
            run.finish(["cells.json", "table.csv"], failed=len(outcome.failed))
    _print_outcome(this, run, outcome)


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
        raise SweError(
            f"{failed} of {len(outcome.rows)} cells failed, first: {first}",
            "The other rows are safe. The same command tries the failed ones again.",
        )
