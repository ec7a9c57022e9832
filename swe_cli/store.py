"""Run directories: identity, names, manifests, locks, provenance."""

import os
import platform
import re
import shutil
import subprocess
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from functools import cache
from importlib.metadata import version
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import filelock

from swe_cli.errors import CorruptFileError, RunError, SweWarning
from swe_cli.files import (
    DAMAGED,
    HOST,
    canonical,
    checked,
    corrupt,
    digest,
    read_json,
    read_tensors,
    remove_litter,
    sha256,
    storage,
    write_json,
)
from swe_cli.records import Tensors
from swe_cli.shapes import CONFIGS, DONE

FORMAT_VERSION, NOTE = 1, ".holder.json"
# Seconds that a lock may be held by who only looks, and after which who waits is told for whom.
GLANCE, PATIENCE = 0.2, 60.0
KINDS = ("train", "prune", "sweep")
_TELLING = {"train": "paths", "prune": "cell", "sweep": "words"}  # keys of a config.json

# A key added after version 0.1 leaves identities as they were where it has the value listed here.
# Values are frozen: when a default changes later, its runs get a new name.
INTRODUCTION_VALUES: Mapping[str, Any] = {
    "training.trains": "all",
    "training.on_spike": "record",
    "training.backward": "dense",
    "pretraining.on_spike": "record",
    "pretraining.backward": "dense",
    "tracking.frozen": False,
    "pretraining.name": "none",
    "roles": "all",
    "calibration.context": None,
    "schedule.name": "one_shot",
}


def identity(config: Mapping[str, Any]) -> str:
    """Sixteen hex digits that name a configuration: hash of its canonical JSON."""
    return digest(_without_introductions(config))[:16]


def _without_introductions(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            inside = _without_introductions(value, f"{path}.")
            if inside or not value:
                kept[key] = inside
        elif path not in INTRODUCTION_VALUES or INTRODUCTION_VALUES[path] != value:
            kept[key] = value
    return kept


def check_identity(path: Path, config: Mapping[str, Any], name: str) -> None:
    """Raise CorruptFileError for a configuration, read from ``path``, that is not what the name of
    its folder is a hash of.
    """
    if not identity(config).startswith(name):
        raise corrupt(path, "is damaged: it is not what the name of its folder says")


@dataclass(frozen=True)
class Run:
    """One directory under the results root. What it is, its manifest says; its name may change."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def kind(self) -> str:
        """``train``, ``prune`` or ``sweep``; another word where nothing tells."""
        manifest = _read_or_none(self.path / "manifest.json")
        if "kind" in manifest:
            return str(manifest["kind"])
        config = _read_or_none(self.path / "config.json")  # of a run written before 0.2
        word = self.name.partition("-")[0]
        return next((kind for kind, key in _TELLING.items() if key in config), word)

    @property
    def exists(self) -> bool:
        return (self.path / "manifest.json").is_file()

    @property
    def damaged(self) -> list[str]:
        """Files that were set aside and are not made again yet."""
        aside = (self.path / DAMAGED).glob("*")
        names = dict.fromkeys(path.name.rpartition(".")[0] for path in aside)
        return [name for name in names if not (self.path / name).is_file()]

    @property
    def config(self) -> dict[str, Any]:
        path, kind, tail = self.path / "config.json", self.kind, self.name.rpartition("-")[2]
        config = dict(checked(path, read_json(path), CONFIGS.get(kind, {})))
        if kind == "train" and re.fullmatch("[0-9a-f]{8}", tail):
            check_identity(path, config["identity"], tail)
        return config

    @property
    def written(self) -> float:
        """Seconds since the epoch, as its manifest says: a copy is not newer than its original."""
        path = self.path / "manifest.json"
        try:
            return datetime.fromisoformat(str(_read_or_none(path)["written"])).timestamp()
        except (KeyError, ValueError, OverflowError):
            return (path if path.exists() else self.path).stat().st_mtime

    @property
    def manifest(self) -> dict[str, Any]:
        told = dict(read_json(path := self.path / "manifest.json"))
        shape = DONE.get(told.get("kind", self.kind)) if told["status"] == "done" else None
        return dict(checked(path, told, shape))

    @property
    def finished(self) -> bool:
        return self.exists and self.manifest["status"] == "done"

    @property
    def status(self) -> str:
        """``done``, ``running`` (a process holds it) or ``stopped`` (the same command resumes)."""
        return "done" if self.finished else "running" if self.holder() else "stopped"

    def tensors(self, name: str) -> Tensors:
        """A tensor file of a finished run, checked against the manifest."""
        digest = self.manifest["files"].get(name)
        if digest is None:
            raise RunError(f"{self.name} holds no {name}.", f"Status: {self.status}.")
        return read_tensors(self.path / name, digest)

    def check_finished(self, makes: str = "trains") -> None:
        """Raise RunError for a run that has no final weights; ``makes``: what its command does."""
        if not self.finished:
            why = f"{self.name} is {self.status}: it has no final weights yet."
            raise RunError(why, f"Type the command that {makes} it again: it resumes.")

    def begin(self, config: Mapping[str, Any]) -> None:
        """Record what is about to run; a finished run keeps its manifest until it is replaced."""
        write_json(self.path / "config.json", config)
        if not self.finished:
            self._write_manifest("running", {})

    def finish(self, files: list[str], **provenance_of: Any) -> None:
        """Record that the run is whole, with the hash of every file."""
        hashes = {name: sha256(self.path / name) for name in files}
        self._write_manifest("done", {**provenance_of, "files": hashes})

    def discard(self) -> None:
        """Remove a run that cannot be, so that no list shows it; one that is whole stays."""
        if not self.finished:
            shutil.rmtree(self.path, ignore_errors=True)

    def _write_manifest(self, status: str, values: Mapping[str, Any]) -> None:
        base = {"format": FORMAT_VERSION, "kind": self.kind, "status": status, "files": {}}
        write_json(self.path / "manifest.json", {**base, **provenance(), **values})

    def holder(self) -> str | None:
        return holder(self.path / ".lock")

    @contextmanager
    def hold(self, wait: bool = False) -> Iterator[None]:
        """Keep other processes out. They are told who holds the run, and wait only if asked. What
        a killed one left half-written goes.
        """
        with locked(self.path / ".lock", self.name, wait):
            remove_litter(self.path)
            yield


@contextmanager
def locked(path: Path, name: str, wait: bool = True) -> Iterator[None]:
    """Keep other processes out of what the lock file ``path`` stands for: by flock, which the
    system lets go when a process ends. Those that do not ``wait`` are told who holds ``name``.
    """
    lock, note = filelock.FileLock(path), _note(path)
    with storage(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            held = lock.acquire(PATIENCE if wait else GLANCE)
        except filelock.Timeout:  # an OSError, too
            why = f"{name} is held by {holder(path) or 'another process'}."
            if not wait:
                raise RunError(why, "Add --wait to wait for it.") from None
            hint = "If its machine is gone, free it: swe runs --clean"
            warnings.warn(f"{why} Waiting for it. {hint}", SweWarning, stacklevel=2)
            held = lock.acquire()
    with held:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        with storage(path.parent):
            note.write_text(canonical({"process": os.getpid(), "host": HOST, "since": since}))
        try:
            yield
        finally:
            with suppress(OSError):
                note.unlink()


def holder(lock: Path) -> str | None:
    """Who holds a lock, in words, or None where nobody does."""
    if not lock.is_file():
        return None
    with suppress(OSError), filelock.FileLock(lock, timeout=0):
        return None
    held = _read_or_none(_note(lock))
    with suppress(KeyError):
        return f"process {held['process']} on {held['host']} since {held['since']}"
    return "another process"


def _note(lock: Path) -> Path:
    """Where it is written down who holds a lock."""
    return lock.with_name(lock.name.removesuffix(".lock") + NOTE)


def notes(runs: Path) -> list[tuple[Path, Path]]:
    """Locks of runs and cells that somebody holds, or did when killed, with the notes of whom."""
    found = [*runs.glob(f"*/{NOTE}"), *runs.glob(f"cells/.locks/*{NOTE}")]
    return [(path.with_name(path.name.removesuffix(NOTE) or ".lock"), path) for path in found]


def list_runs(root: Path, kinds: tuple[str, ...] = KINDS) -> list[Run]:
    """Runs under a results root, newest first."""
    runs = (Run(path.parent) for path in (root / "runs").glob("*/manifest.json"))
    asked = (run for run in runs if run.kind in kinds)
    return sorted(asked, key=lambda run: (-run.written, run.name))


def _read_or_none(path: Path) -> dict[str, Any]:
    """A JSON object; empty where it cannot be read, which is said by whoever needs it."""
    try:
        value = read_json(path)
    except CorruptFileError:
        return {}
    return value if isinstance(value, dict) else {}


def find_run(token: str, root: Path, kinds: tuple[str, ...] = KINDS) -> Run:
    """The run of ``kinds`` that a user means by a name, a unique prefix of one, or a path."""
    path = Path(token).expanduser()
    if (path / "manifest.json").is_file():
        matches = [Run(path.resolve())]
    else:
        matches = _meant(token, list_runs(root, kinds)) or _meant(token, list_runs(root))
    others = [run for run in matches if run.kind not in kinds]
    if not matches or len(others) > 1:
        alike = get_close_matches(token, [run.name for run in list_runs(root)], n=1)
        question = "".join(f" Did you mean {name}?" for name in alike)
        why = f"No run in {root / 'runs'} is called {token!r}.{question}"
        raise RunError(why, "List them: swe runs")
    if len(matches) > 1:
        names = ", ".join([run.name for run in matches[:4]] + ["…"] * (len(matches) > 4))
        newest = f"Type more of it; the newest is {matches[0].name}"
        raise RunError(f"{token!r} could be {names}.", newest)
    if others:
        reason = f"{others[0].name} is no {' or '.join(kinds)} run, which is what is asked for."
        raise RunError(reason, "See: swe runs")
    return matches[0]


def _meant(token: str, runs: list[Run]) -> list[Run]:
    """By a whole name, else by how names begin, else by what follows their kind: gpt_nano-3f9a."""
    return (
        [run for run in runs if run.name == token]
        or [run for run in runs if run.name.startswith(token)]
        or [run for run in runs if run.name.partition("-")[2].startswith(token)]
    )


def training_of(run: Run) -> Run:
    """A training as it is; of a pruned run, what it was cut from. RunError where that is gone."""
    if run.kind != "prune":
        return run
    training = Run(run.path.parent / run.config["training"])
    if not training.exists:
        why = f"{run.name} was cut from {training.name}, which is not in {run.path.parent}."
        raise RunError(why, "Put that folder back, or type the swe train that makes it again.")
    return training


def provenance() -> dict[str, Any]:
    """Where a number comes from: code, packages, host, time."""
    packages = ("swe-cli", "torch", "numpy", "safetensors")
    versions = {"python": platform.python_version()} | {name: version(name) for name in packages}
    host, written = HOST, datetime.now().astimezone().isoformat()
    return {"versions": versions, "commit": _commit(), "host": host, "written": written}


@cache
def _commit() -> str | None:
    """The commit of the checkout this code runs from; None for an installed package."""
    here = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    with suppress(OSError, subprocess.SubprocessError):
        if (here / ".git").exists():
            return subprocess.check_output(command, text=True, timeout=5, stderr=DEVNULL).strip()
    return None
