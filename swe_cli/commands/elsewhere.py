"""A sweep that lies elsewhere (``s3://…``, ``zip://…``): the small files of its report, copied.

What a stranger wrote is data: names that could lead out of the folder are refused, sizes have
limits, and of a training only the manifest is taken, so that no model is built and no data read.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swe_cli.errors import CorruptFileError, RunError, UsageError
from swe_cli.experiments.cell import COSTS_FILE, FILES, WINDOWS
from swe_cli.files import read_json, write_bytes
from swe_cli.store import Run

OF_SWEEP = ("manifest.json", "config.json", "cells.json", "failed.json", "compare.json")
OF_CELL = ("row.json", WINDOWS, FILES, "cell.json", "layers.json", "timing.json", COSTS_FILE)
AS = "As in s3://bucket/results/runs/sweep-…, or zip://runs/sweep-…::archive.zip"
NAME = re.compile(r"\w[\w.-]*")
LARGEST, MOST, AT_ONCE = 32 << 20, 4 << 30, 32  # bytes of a file, of all; files held in memory


def fetched(url: str, folder: Path) -> Run:
    """A finished sweep at any address that fsspec knows, copied into ``folder``.

    Raises UsageError for an address that cannot be opened here, RunError where no sweep is there,
    or where it is too large, CorruptFileError for names that a sweep never has.
    """
    from fsspec.core import url_to_fs

    try:
        there, path = url_to_fs(url)
    except ImportError as error:
        raise UsageError(f"{url} cannot be opened.", f"With pip: {error}.") from None
    except Exception as error:  # each protocol has its own
        raise UsageError(f"{url} cannot be opened: {error}.", AS) from None
    runs, _, name = path.rstrip("/").rpartition("/")
    _check(url, name)
    copied = 0

    def copy(names: Sequence[str]) -> None:
        nonlocal copied
        for at in range(0, len(names), AT_ONCE):
            some = names[at : at + AT_ONCE]
            ends = [LARGEST + 1] * len(some)
            paths = [f"{runs}/{one}" if runs else one for one in some]
            contents = there.cat_ranges(paths, [0] * len(some), ends, on_error="return")
            for one, content in zip(some, contents, strict=True):
                # As zip:// has it; as a bucket that may not be listed.
                if isinstance(content, FileNotFoundError | KeyError | PermissionError):
                    continue
                if isinstance(content, Exception):
                    raise RunError(f"{url}: {one} cannot be read: {content}.", "Try again.")
                copied += len(content)
                if len(content) > LARGEST or copied > MOST:
                    why = f"{url}: {one} makes it larger than a report should be."
                    raise RunError(why, "Copy it here, and report the folder.")
                write_bytes(folder / "runs" / one, content)

    copy([f"{name}/{file}" for file in OF_SWEEP])
    run = Run(folder / "runs" / name)
    cells = [entry["cell"] for entry in _lines(url, run.path / "cells.json", "cell")]
    copy([f"cells/{cell}/{file}" for cell in cells for file in OF_CELL])
    told = [run.path / "failed.json"]
    told += [run.path.parent / "cells" / cell / "row.json" for cell in cells]
    rows = [row for path in told for row in _lines(url, path, "config_hash", "training")]
    if not rows:
        why = f"{url}: none of its {len(cells)} cells is in {runs or '.'}/cells."
        raise RunError(why, "They lie beside the sweep's folder: an archive needs them, too.")
    copy([f"{training}/manifest.json" for training in {row["training"] for row in rows}])
    return run


def _lines(url: str, path: Path, *names: str) -> list[Mapping[str, Any]]:
    """What a file lists, or the one thing it holds, with ``names`` that stay inside a folder."""
    if not path.is_file():
        if path.name != "cells.json":  # a cell is gone, or none failed
            return []
        hint = "Name the folder of a finished sweep: …/runs/sweep-demo-1a2b3c4d"
        raise RunError(f"{url} is no finished sweep: it has no {path.name}.", hint)
    value = read_json(path)
    lines = value if isinstance(value, list) else [value]
    for line in lines:
        _check(url, *(line.get(name) if isinstance(line, Mapping) else None for name in names))
    return lines


def _check(url: str, *names: Any) -> None:
    for name in names:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise CorruptFileError(f"{url}: {name!r} is no name of a sweep.", "Name its folder.")
