"""Run directories: names, atomic writes, locks, provenance. Nothing here is ever unpickled.

Every file goes to a temporary name, is synced, and is renamed; a checkpoint is a whole directory
that is renamed once. So what carries its final name is complete, whenever the machine stopped.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import filelock
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from swe_cli.contracts import Tensors
from swe_cli.errors import CorruptFileError, RunError, StorageError

FORMAT_VERSION = 1
KINDS = ("train", "prune", "sweep")

# A key added after version 0.1 leaves identities as they were where it has the value listed here.
# Values are frozen: when a default changes later, its runs get a new name.
INTRODUCTION_VALUES: Mapping[str, Any] = {}


def identity(config: Mapping[str, Any]) -> str:
    """Sixteen hex digits that name a configuration: hash of its canonical JSON."""
    return hashlib.sha256(canonical(_without_introductions(config)).encode()).hexdigest()[:16]


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; non-finite numbers are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _without_introductions(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            kept[key] = _without_introductions(value, f"{path}.")
        elif path not in INTRODUCTION_VALUES or INTRODUCTION_VALUES[path] != value:
            kept[key] = value
    return kept


# Writing


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into one sentence that names the place."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"Cannot write {path}: {error.strerror or error}. What was written before stays valid.",
            "Choose another place with results_dir=PATH, or make room.",
        ) from error


def commit(temporary: Path, final: Path) -> None:
    """Make a finished file or directory appear under its final name, durably."""
    _sync(temporary)
    os.replace(temporary, final)
    _sync(final.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with _replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, readable and with sorted keys."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def write_tensors(path: Path, tensors: Tensors, metadata: Mapping[str, Any] | None = None) -> None:
    """Write safetensors atomically. ``metadata`` is stored as JSON under the single key ``swe``."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with _replacing(path) as temporary:
        try:
            save_file(plain, temporary, {"swe": canonical(metadata or {})})
        except SafetensorError as error:  # it wraps the system's error in its own
            raise OSError(str(error)) from error


def write_directory(path: Path, files: Mapping[str, Tensors], state: Mapping[str, Any]) -> None:
    """Write a directory of tensor files and ``state.json`` that appears whole or not at all."""
    temporary = _temporary(path)
    try:
        with storage(path):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        for name, tensors in files.items():
            write_tensors(temporary / f"{name}.safetensors", tensors)
        names = [f"{name}.safetensors" for name in files]
        hashes = {name: sha256(temporary / name) for name in names}
        write_json(temporary / "state.json", {**state, "files": hashes})
        remove_directory(path)
        with storage(path):
            commit(temporary, path)
    except StorageError:  # on a full disk, room is what is wanted
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_directory(path: Path) -> None:
    """Remove a directory, if it is there, without ever showing half of it under its name."""
    if not path.exists():
        return
    removed = path.with_name(f".{path.name}.{os.getpid()}.removed.tmp")
    with storage(path):
        shutil.rmtree(removed, ignore_errors=True)
        os.replace(path, removed)
        shutil.rmtree(removed)


def remove_litter(folder: Path) -> None:
    """Remove what a killed process left half-written; only the holder of the folder may ask."""
    for left in list(folder.rglob(".*.tmp")):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write to, which then becomes ``path``; it goes where that fails."""
    temporary = _temporary(path)
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            commit(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Reading


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """Read JSON, or say which file is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CorruptFileError(
            f"{path} is missing.", "Run the command that made it again."
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CorruptFileError(
            f"{path} is damaged: {error}.", "Delete it and run the command that made it again."
        ) from None


def _read_object(path: Path, *needed: str) -> dict[str, Any]:
    """A JSON object that holds the keys it must have, or CorruptFileError naming the file."""
    value = read_json(path)
    missing = [key for key in needed if not isinstance(value, dict) or key not in value]
    if missing:
        raise CorruptFileError(
            f"{path} is damaged: it holds no {missing[0]}.",
            "Delete it and run the command that made it again.",
        )
    found: dict[str, Any] = value
    return found


def read_tensors(path: Path, expected_sha256: str | None = None) -> Tensors:
    """Read safetensors; a file that does not match its hash is refused by name."""
    if not path.is_file():
        raise CorruptFileError(f"{path} is missing.", "Run the command that made it again.")
    if expected_sha256 is not None and sha256(path) != expected_sha256:
        raise CorruptFileError(
            f"{path} does not match its recorded hash: it is truncated or was changed.",
            "Delete its folder and run the command that made it again.",
        )
    try:
        tensors: Tensors = load_file(path)
    except SafetensorError as error:
        raise CorruptFileError(
            f"{path} is damaged: {error}.", "Delete it and run the command that made it again."
        ) from None
    return tensors


def read_metadata(path: Path) -> dict[str, Any]:
    """The JSON stored beside the tensors of a file written by ``write_tensors``."""
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, Any] = json.loads((file.metadata() or {}).get("swe", "{}"))
    return metadata


def read_directory(path: Path) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """Read back what ``write_directory`` wrote: tensors by file stem, and the state."""
    state = read_json(path / "state.json")
    files = {
        name.removesuffix(".safetensors"): read_tensors(path / name, digest)
        for name, digest in state["files"].items()
    }
    return files, state


# Runs


@dataclass(frozen=True)
class Run:
    """One directory under the results root. Its first word is its kind: train, prune or sweep."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def kind(self) -> str:
        return self.name.split("-", 1)[0]

    @property
    def exists(self) -> bool:
        return (self.path / "manifest.json").is_file()

    @property
    def config(self) -> dict[str, Any]:
        needed = {"train": ("identity", "paths"), "prune": ("training",)}.get(self.kind, ())
        return _read_object(self.path / "config.json", *needed)

    @property
    def manifest(self) -> dict[str, Any]:
        return _read_object(self.path / "manifest.json", "status", "files")

    @property
    def finished(self) -> bool:
        return self.exists and self.manifest["status"] == "done"

    @property
    def status(self) -> str:
        """``done``, ``running`` (a process holds it) or ``stopped`` (the same command resumes)."""
        if self.finished:
            return "done"
        return "running" if self.holder() else "stopped"

    def tensors(self, name: str) -> Tensors:
        """A tensor file of a finished run, checked against the manifest."""
        digest = self.manifest["files"].get(name)
        if digest is None:
            raise RunError(f"{self.name} holds no {name}.", f"Status: {self.status}.")
        return read_tensors(self.path / name, digest)

    def begin(self, config: Mapping[str, Any], **provenance_of: Any) -> None:
        """Record what is about to run; a finished run keeps its manifest until it is replaced."""
        write_json(self.path / "config.json", config)
        if not self.finished:
            self._write_manifest("running", provenance_of)

    def finish(self, files: list[str], **provenance_of: Any) -> None:
        """Record that the run is whole, with the hash of every file."""
        hashes = {name: sha256(self.path / name) for name in files}
        self._write_manifest("done", {**provenance_of, "files": hashes})

    def _write_manifest(self, status: str, values: Mapping[str, Any]) -> None:
        base = {"format": FORMAT_VERSION, "status": status, "files": {}, **provenance()}
        write_json(self.path / "manifest.json", {**base, **values})

    def holder(self) -> str | None:
        """Who holds this run, in words, or None where nobody does."""
        lock = self.path / ".lock"
        if not lock.is_file():
            return None
        try:
            with filelock.FileLock(lock, timeout=0):
                return None
        except (filelock.Timeout, OSError):
            try:
                held = json.loads((self.path / ".holder.json").read_text())
                return f"process {held['process']} on {held['host']} since {held['since']}"
            except (OSError, ValueError, KeyError):
                return "another process"

    @contextmanager
    def hold(self, wait: bool = False) -> Iterator[None]:
        """Keep other processes out. They are told who holds the run, and wait only if asked."""
        with storage(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.path / ".lock", timeout=-1 if wait else 0)
        with storage(self.path):
            try:
                lock.acquire()
            except filelock.Timeout:  # an OSError, too
                raise RunError(
                    f"{self.name} is held by {self.holder() or 'another process'}.",
                    "Add --wait to wait for it.",
                ) from None
        try:
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            holder = {"process": os.getpid(), "host": platform.node(), "since": since}
            write_json(self.path / ".holder.json", holder)
            yield
        finally:
            lock.release()


def list_runs(root: Path, kinds: tuple[str, ...] = KINDS) -> list[Run]:
    """Runs under a results root, newest first."""
    if not (root / "runs").is_dir():
        return []
    runs = [Run(path) for path in (root / "runs").iterdir() if path.is_dir()]
    runs = [run for run in runs if run.kind in kinds and run.exists]
    return sorted(runs, key=lambda run: (-_changed(run), run.name))


def _changed(run: Run) -> int:
    return (run.path / "manifest.json").stat().st_mtime_ns


def find_run(token: str, root: Path, kinds: tuple[str, ...] = KINDS) -> Run:
    """The run a user means by a name, a unique prefix of one, or a path."""
    path = Path(token).expanduser()
    if (path / "manifest.json").is_file():
        return Run(path.resolve())
    runs = list_runs(root, kinds)
    exact = [run for run in runs if run.name == token]
    matches = exact or [run for run in runs if run.name.startswith(token)]
    # People also type what follows the kind: gpt_nano-3f9a.
    matches = matches or [r for r in runs if r.name.split("-", 1)[1].startswith(token)]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise RunError(f"No run in {root / 'runs'} is called {token!r}.", "List them: swe runs")
    names = ", ".join(run.name for run in matches[:4])
    raise RunError(f"{token!r} could be {names}{', …' if len(matches) > 4 else ''}.", "Type more.")


def provenance() -> dict[str, Any]:
    """Where a number comes from: code, packages, host, time."""
    packages = ("swe-cli", "torch", "numpy", "safetensors")
    return {
        "versions": {"python": platform.python_version(), **{p: _version(p) for p in packages}},
        "commit": _commit(),
        "host": platform.node(),
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _commit() -> str | None:
    """The commit of the checkout this code runs from; None for an installed package."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
