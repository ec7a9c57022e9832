"""swe runs: what there is, newest first."""

import time
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from swe_cli.commands.shared import output, read_words
from swe_cli.compose import compose
from swe_cli.errors import CorruptFileError
from swe_cli.records import Row
from swe_cli.reporting.text import exact, number
from swe_cli.runs import Run, list_runs
from swe_cli.sweeps.build import results_root


def runs(words: Sequence[str], config_dir: Path | None) -> None:
    """Every run with its kind, status, age and size on disk."""
    tokens = read_words("runs", words, runs=0)
    results = results_root(compose("runs", tokens.overrides).values["results_dir"])
    console, found = output(), list_runs(results)
    if not found:
        console.print(f"No runs in {results / 'runs'}.", markup=False, soft_wrap=True)
        console.print("Start one: swe sweep experiment=demo")
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("run", "status", "written", "size"):
        table.add_column(title, overflow="fold", justify="right" if title == "size" else "left")
    for run in found:
        written = (run.path / "manifest.json").stat().st_mtime
        moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(written))
        what = _what(run)
        named = Text.assemble(run.name, (f"\n  {what}" if what else "", "dim"))
        table.add_row(named, _status(run), moment, decimal(_size(run)))
    console.print(table)


def _what(run: Run) -> str:
    """What tells a run from others of its name: a loss, a cut; nothing of one that is not done."""
    try:
        manifest = run.manifest if run.finished else {}
    except CorruptFileError:
        return ""
    if "row" in manifest:
        row = Row.from_json(manifest["row"])
        asked = {"ratio": row.ratio, "rate": row.rate, "fuse": row.fuse}
        words = [f"{name} {exact(value)}" for name, value in asked.items() if value is not None]
        words += [
            word for word in (row.pattern, row.schedule) if word not in (None, "unstructured")
        ]
        return ", ".join([*words, f"loss {number(row.loss_nats)}"])
    loss = manifest.get("results", {}).get("final_validation_loss_nats")
    return "" if loss is None else f"validation {number(loss)}"


def _status(run: Run) -> str:
    try:
        failed = run.manifest.get("failed", 0) if run.finished else 0
        return f"{run.status}, {failed} failed" if failed else run.status
    except CorruptFileError:
        return "damaged"


def _size(run: Run) -> int:
    return sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
