"""swe runs: what there is, newest first."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from swe_cli.commands.shared import page
from swe_cli.errors import CorruptFileError
from swe_cli.records import Row
from swe_cli.report.text import exact, number
from swe_cli.store import list_runs


def runs(words: Sequence[str], config_dir: Path | None) -> None:
    """Every run with its kind, status, age and size on disk."""
    this = page("runs", words)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("run", "status", "written", "size"):
        table.add_column(title, overflow="fold", justify="right" if title == "size" else "left")
    for run in list_runs(this.results):
        moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.written))
        size = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
        try:
            manifest, status = run.manifest if run.finished else {}, run.status
        except CorruptFileError:
            manifest, status = {}, "damaged"
        if failed := manifest.get("failed"):
            status += f", {failed} failed"
        what = _what(manifest)
        named = Text.assemble(run.name, (f"\n  {what}" if what else "", "dim"))
        table.add_row(named, status, moment, decimal(size))
    if table.rows:
        this.console.print(table)
    else:
        this.print(f"No runs in {this.results / 'runs'}.\nStart one: swe sweep experiment=demo")


def _what(manifest: dict[str, Any]) -> str:
    """What tells a run from others of its name: a loss, a cut; nothing of one that is not done."""
    if "row" not in manifest:
        loss = manifest.get("results", {}).get("final_validation_loss_nats")
        return "" if loss is None else f"validation {number(loss)}"
    row = Row.from_json(manifest["row"])
    amounts = {key: row.settings.get(key) for key in ("ratio", "rate", "fuse")}
    words = [f"{key} {exact(float(str(v)))}" for key, v in amounts.items() if v is not None]
    shapes = (row.settings.get("pattern"), row.settings.get("schedule"))
    words += [str(shape) for shape in shapes if shape not in (None, "unstructured")]
    return ", ".join([*words, f"loss {number(row.mean('loss'))}"])
