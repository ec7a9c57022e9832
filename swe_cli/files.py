"""Atomic files: what carries its final name is complete, whenever the machine stopped.

Every file goes to a temporary name, is synced, and is renamed; a checkpoint is a whole directory
that is renamed once. safetensors and JSON only: nothing is ever unpickled.
"""

import hashlib
import json
import math
import os
import platform
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save, save_file

from swe_cli.errors import CorruptFileError, StorageError, SweWarning
from swe_cli.records import Tensors
from swe_cli.shapes import SHAPES, misfit

T = TypeVar("T")
LARGEST_JSON = 64 << 20
DAMAGED = "damaged"  # a folder of what was set aside
HOST = platform.node()
SCALE = ":scale"  # ends the name of what the rows of an int8 tensor are multiplied by


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; non-finite numbers are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256, hex, of the canonical JSON of a value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


# Writing


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into one sentence that names the place."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"Cannot write {path}: {error.strerror or error}. What was written before stays valid.",
            "Choose another place with results_dir=PATH (a report's: --output PATH), or make room.",
        ) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with _replacing(path) as temporary:
        temporary.write_bytes(data)


def write_files(folder: Path, contents: Mapping[str, bytes]) -> list[Path]:
    """Write files by name, each atomically. Gives their paths."""
    for name, data in contents.items():
        write_bytes(folder / name, data)
    return [folder / name for name in contents]


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, readable and with sorted keys."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def write_tensors(path: Path, tensors: Tensors, metadata: Mapping[str, Any] | None = None) -> None:
    """Write safetensors atomically. ``metadata`` is stored as JSON under the single key ``swe``."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with _replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(plain, temporary, {"swe": canonical(metadata or {})})
        except SafetensorError as error:  # it wraps the system's error in its own
            raise OSError(str(error)) from error
        temporary.chmod(mode)  # safetensors makes files that only we can read


def compressed(tensors: Tensors) -> bytes:
    """A safetensors file of ``tensors`` without their zeros: of each a bitmask of the others, and
    these, byte by byte (all first bytes, all second ones, …), both in zstd.
    """
    packed: Tensors = {}
    about = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        about[name] = [str(plain.dtype).removeprefix("torch."), list(plain.shape)]
        raw = plain.flatten().view(torch.uint8).view(-1, plain.element_size())
        there = raw.any(dim=1).bool()  # a zero with a sign is none
        parts = {":mask": np.packbits(there.numpy()), ":values": raw[there].T.contiguous().numpy()}
        for end, part in parts.items():
            blob = _zstd().compress(part.tobytes(), asbytes=True)
            packed[name + end] = torch.frombuffer(bytearray(blob), dtype=torch.uint8)
    return save(packed, {"swe": canonical({"compressed": about})})


def decompressed(path: Path) -> Tensors:
    """What ``compressed`` made a file of, bit for bit. Raises CorruptFileError for another file."""
    packed, tensors = read_tensors(path), Tensors()
    with safe_open(path, "pt") as file:
        about = json.loads((file.metadata() or {}).get("swe", "{}")).get("compressed")
    if about is None:
        raise corrupt(path, "is not compressed", "Make it by --compress: run")
    for name, (kind, shape) in about.items():
        dtype, count = getattr(torch, kind), math.prod(shape)
        blobs = (packed[name + end].numpy().tobytes() for end in (":mask", ":values"))
        mask = np.frombuffer(_zstd().decompress(next(blobs), -(-count // 8), True), np.uint8)
        there = torch.from_numpy(np.unpackbits(mask, count=count)).bool()
        size, kept = dtype.itemsize, int(there.sum())
        values = np.frombuffer(_zstd().decompress(next(blobs), kept * size, True), np.uint8)
        raw = torch.zeros(count, size, dtype=torch.uint8)
        raw[there] = torch.from_numpy(values.copy()).view(size, kept).T
        tensors[name] = raw.flatten().view(dtype).view(shape)
    return tensors


def _zstd() -> Any:
    from pyarrow import Codec  # which pandas brings; a report that compresses nothing need not wait

    return Codec("zstd", compression_level=1)  # 9 is 1.5 % smaller, and takes twice as long


def write_directory(path: Path, files: Mapping[str, Tensors], state: Mapping[str, Any]) -> None:
    """Write a directory of tensor files and ``state.json`` that appears whole or not at all."""
    with _replacing(path) as temporary:
        remove(temporary)
        hashes = {}
        for name, tensors in files.items():
            file = temporary / f"{name}.safetensors"
            write_tensors(file, tensors)
            hashes[file.name] = sha256(file)
        write_json(temporary / "state.json", {**state, "files": hashes})
        remove_directory(path)


def remove_directory(path: Path) -> None:
    """Remove a directory, if it is there, without ever showing half of it under its name."""
    removed = _temporary(path.with_name(f"{path.name}.removed"))
    if path.exists():
        with storage(path):
            shutil.rmtree(removed, ignore_errors=True)
            os.replace(path, removed)
            shutil.rmtree(removed)


def litter(folder: Path) -> list[tuple[Path, str]]:
    """What lies half-written, with the machine whose it is (none: of an older version), but for
    what other processes write that run here.
    """
    found = list[tuple[Path, str]]()
    for path in folder.rglob(".*.tmp"):
        process, host, *name = [*path.name[1:].split("@", 2), ""]
        host = host if name else ""
        if host != HOST or process == str(os.getpid()) or not _alive(process):
            found.append((path, host))
    return found


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (OSError, ValueError, OverflowError) as error:
        return isinstance(error, PermissionError)  # another user's
    return True


def remove_litter(folder: Path) -> None:
    """Remove what a killed process left half-written; only the holder of the folder may ask."""
    for left, _ in litter(folder):
        remove(left)


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary name to write to, which then becomes ``path``; it goes where that fails."""
    temporary = _temporary(path)
    try:
        with storage(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
            _sync(path.parent)
    except StorageError:  # on a full disk, room is what is wanted
        with suppress(OSError):
            remove(temporary)
        raise


def _temporary(path: Path) -> Path:
    """A name beside ``path`` that says whose it is."""
    return path.with_name(f".{os.getpid()}@{HOST}@{path.name}.tmp")


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


@cache
def _sha256_of(path: Path, version: tuple[int, int]) -> str:
    return sha256(path)


def content_sha256(path: Path) -> str | None:
    """Hex digest of a file, or of those of a folder that are no notes; None where it is neither.

    Once a process for what has not changed since.
    """
    files = [path] if path.is_file() else sorted(path.glob("[!.]*.*")) if path.is_dir() else []
    states = {f: f.stat() for f in files if f.is_file() and f.suffix != ".md"}
    known = {f.name: _sha256_of(f, (s.st_size, s.st_mtime_ns)) for f, s in states.items()}
    return digest(known) if known else None


def read_json(path: Path, *needed: str) -> Any:
    """Read JSON of an object with ``needed`` keys, or of the shape that its name promises; or say
    which file is damaged.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no file")
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"it is larger than {LARGEST_JSON >> 20} MiB")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise corrupt(path, "is missing", "Run") from None
    except OSError as error:  # a link that leads to itself
        raise corrupt(path, f"is damaged: {error.strerror}") from None
    except RecursionError:
        raise corrupt(path, "is damaged: it is nested too deep") from None
    except ValueError as error:
        raise corrupt(path, f"is damaged: {error}") from None
    return checked(path, value, dict.fromkeys(needed) if needed else SHAPES.get(path.name))


def read_or_none(read: Callable[[Path], T], path: Path) -> T | None:
    """What ``read`` makes of a path; what is damaged there is said, and left out."""
    try:
        return read(path)
    except CorruptFileError as error:
        warnings.warn(f"{error.message} It is left out. {error.hint}", SweWarning, stacklevel=2)
        return None


def checked(path: Path, value: Any, shape: Any) -> Any:
    """What was read of a file, if it is of a shape; or say that the file is damaged."""
    if wrong := misfit(value, shape):
        raise corrupt(path, f"is damaged: {wrong}")
    return value


def read_tensors(path: Path, expected_sha256: str | None = None) -> Tensors:
    """Read safetensors, int8 as floats; a file that does not match its hash is refused by name."""
    if not path.is_file():
        raise corrupt(path, "is missing", "Run")
    if expected_sha256 is not None and sha256(path) != expected_sha256:
        what = "does not match its recorded hash: it is truncated or was changed"
        raise corrupt(path, what, "Delete its folder and run")
    try:
        return dequantized(load_file(path))
    except SafetensorError as error:
        raise corrupt(path, f"is damaged: {error}") from None


def dequantized(stored: Tensors) -> Tensors:
    """What int8 (out, in) with a scale (out,) for its rows stands for; the rest as it is."""
    scales = {name.removesuffix(SCALE): stored[name] for name in stored if name.endswith(SCALE)}
    plain = {name: tensor for name, tensor in stored.items() if not name.endswith(SCALE)}
    return plain | {name: plain[name] * scale[:, None] for name, scale in scales.items()}


def corrupt(path: Path, what: str, remedy: str = "Delete it and run") -> CorruptFileError:
    error = CorruptFileError(f"{path} {what}.", f"{remedy} the command that made it again.")
    error.path = path
    return error


def set_aside(path: Path) -> Path:
    """Move a damaged file into ``damaged/`` beside it, under its name and when; where it is now.

    One that is gone leaves an empty file there, which says so.
    """
    place = path.parent / DAMAGED / f"{path.name}.{time.strftime('%Y%m%d-%H%M%S')}"
    with storage(path):
        place.parent.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):
            os.replace(path, place)
        place.touch()
    return place


def read_directory(path: Path) -> tuple[dict[str, Tensors], dict[str, Any]]:
    """Read back what ``write_directory`` wrote: tensors by file stem, and the state."""
    state = read_json(path / "state.json")
    files = {
        name.removesuffix(".safetensors"): read_tensors(path / name, digest)
        for name, digest in state["files"].items()
    }
    return files, state
