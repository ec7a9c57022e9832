"""swe runs, doctor: what there is, and on what machine."""

import os
import platform
import shutil
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import typer
from rich.filesize import decimal
from rich.live import Live
from rich.table import Table
from rich.text import Text

from swe_cli.commands.shared import Page, listening
from swe_cli.config import shipped_conf
from swe_cli.data.cache import cache_folder
from swe_cli.errors import CorruptFileError, UsageError
from swe_cli.evaluation.cost import Meter
from swe_cli.files import HOST, litter, remove
from swe_cli.records import Row
from swe_cli.report.console import Cells, print_pairs, table_of
from swe_cli.report.text import count, number, printable, word
from swe_cli.store import Run, holder, list_runs, notes

EVERY = 1.0  # seconds between looks of --watch
PACKAGES = ("swe-cli", "torch", "numpy", "hydra-core", "safetensors", "pandas")
# Package → the extra that brings it, and what needs it.
OPTIONAL = {
    "tokenizers": ("bpe", "tokenizer=bpe"),
    "pillow": ("multimodal", "data=image_folder"),
    "easy-vqa": ("multimodal", "data=easy_vqa"),
    "lm-eval": ("lm-eval", "swe evaluate --tasks"),
    "transformers": ("huggingface", "model=huggingface"),
    "codecarbon": ("energy", "energy.country"),
    "tensorly": ("trawl", "transform=trawl_cp"),
    "scikit-learn": ("multimodal", "data=digit_sums"),
    **{name: (name, f"tracker={name}") for name in ("tensorboard", "trackio", "wandb", "mlflow")},
}


def runs(this: Page, *, watch: bool = False, clean: bool = False, yes: bool = False) -> None:
    """Every run, newest first, with its kind, status, age and size on disk.

    ``watch``: again every second, until Ctrl-C. ``clean``: instead, remove what processes that are
    gone left; ``yes``: without asking. UsageError where there is no terminal to redraw.
    """
    if clean:
        this.result(_clean(this, yes))
        return
    if watch:
        if this.form is not None or not this.console.is_terminal:
            why = "--watch redraws a terminal, and here is none."
            raise UsageError(why, "Type: swe runs")
        _watch(this)
        return
    told, table = _listed(this.results)
    if told:
        this.console.print(table)
    else:
        this.print(_nothing(this))
    this.result(told)


def _watch(this: Page) -> None:
    """Ctrl-C is how one leaves it: no failure."""
    with listening() as stop, Live(console=this.console, auto_refresh=False) as live:
        while not stop():
            with suppress(FileNotFoundError):  # a run that went meanwhile: the next look tells
                told, table = _listed(this.results)
                live.update(table if told else Text(_nothing(this)), refresh=True)
            time.sleep(EVERY)


def _nothing(this: Page) -> str:
    return printable(f"No runs in {this.results / 'runs'}.\nStart one: swe sweep experiment=demo")


def _listed(results: Path) -> tuple[list[dict[str, Any]], Table]:
    """All runs as values, and as a table."""
    rows, told = list[Cells](), list[dict[str, Any]]()
    found = list_runs(results)
    named = [Run(path) for path in sorted((results / "runs").glob("*-*"))]
    lost = [run for run in named if run not in found and any(run.path.glob("[!.]*"))]
    lost = [run for run in lost if run.holder() is None]  # else it begins
    for run in [*found, *lost]:
        moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.written))
        size = 0
        with suppress(FileNotFoundError):  # what is being written has a name that goes
            for path in run.path.rglob("*"):
                size += path.stat().st_size if path.is_file() else 0
        try:
            manifest, status = run.manifest, run.status
            what = _what(manifest)
        except CorruptFileError as error:
            manifest, status, what = {}, "damaged", error.message.replace(f"{run.path}/", "")
        if failed := manifest.get("failed"):
            status += f", {failed} failed"
        about = {"run": run.name, "kind": run.kind, "status": status, "written": moment}
        told.append({**about, "bytes": size, "path": run.path, "what": what})
        words = Text.assemble(run.name, (f"\n  {what}" if what else "", "dim"))
        rows.append([words, status, moment, decimal(size)])
    return told, table_of(["", "status", "written", "size"], rows)


def _clean(this: Page, yes: bool) -> list[Path]:
    """Remove, after a yes, what processes left that are gone; on other machines nobody here knows
    whether they are, so that this is a question of its own. What was removed.
    """
    place, removed = this.results / "runs", list[Path]()
    left = [(path, f"half-written on {of or '?'}", of == HOST) for path, of in litter(place)]
    for lock, note in notes(place):
        if (who := holder(lock)) is None:
            left.append((note, "of a process that is gone", True))
        elif f" on {HOST} since" not in who:
            left.append((lock, f"held by {who}", False))
    theirs = "Only their machines know whether these processes are gone. Remove what is theirs?"
    for ours, question in ((True, "Remove these?"), (False, theirs)):
        those = [(path, told) for path, told, of in left if of is ours]
        for path, told in those:
            this.print(f"{path.relative_to(place)}: {told}")
        if those and yes and not ours:
            this.print("These stay: without --yes you are asked about other machines.")
        elif those and (yes or typer.confirm(question, err=True)):
            removed += [path for path, _ in those]
    for path in removed:
        remove(path)
    this.print(f"Removed {count(len(removed), 'file')} of {len(left)} that were left.")
    return removed


def _what(manifest: dict[str, Any]) -> str:
    """What tells a run from others of its name: a loss, a cut; nothing of one that is not done."""
    if "row" not in manifest:
        loss = manifest.get("results", {}).get("final_validation_loss_nats")
        return "" if loss is None else f"validation {number(loss)}"
    row = Row.from_json(manifest["row"])
    told = ("ratio", "rate", "fuse", "pattern", "schedule", "update", "quantize")
    cut = [(key, of) for key in told if (of := row.settings.get(key)) not in (None, "unstructured")]
    words = [of if isinstance(of, str) else f"{key} {word(of)}" for key, of in cut]
    return ", ".join([*words, f"loss {number(row.mean('loss'))}"])


def doctor(this: Page) -> None:
    """Versions, device, threads, folders, and what is optional and missing."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    counters = Meter(torch.device("cuda" if gpus else "cpu")).counters
    lines = {
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        **{package: _version(package, "missing") for package in PACKAGES},
        "device": f"cuda: {', '.join(gpus)}" if gpus else "cpu (no CUDA device found)",
        "threads": f"{torch.get_num_threads()} of {os.cpu_count()} cores",
        "energy": ", ".join(counters) or "no counter can be read (RAPL, NVML): energy.watts=…",
        "configuration": str(shipped_conf()),
        "results": f"{this.results.resolve()} ({_room(this.results)})",
        "data": os.environ.get("SWE_DATA_DIR") or "no SWE_DATA_DIR set (not needed)",
        "cache": str(cache_folder()),
    }
    for name, (extra, use) in OPTIONAL.items():
        lines[name] = _version(name, f"missing; for {use}: pip install 'swe-cli[{extra}]'")
    print_pairs(this.console, list(lines.items()))
    this.result(lines)


def _version(package: str, otherwise: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return otherwise


def _room(results: Path) -> str:
    """Whether a run could be written, and how much room there is."""
    place = next(path for path in (results.resolve(), *results.resolve().parents) if path.exists())
    if not place.is_dir():
        return "not a folder"
    if not os.access(place, os.W_OK):
        return "read-only"
    return f"{shutil.disk_usage(place).free / 2**30:.0f} GiB free"
