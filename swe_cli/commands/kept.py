"""What a report said, kept in the user's cache, and said again while nothing it is made of changes.

It is a copy at most, and never a stranger's: without it, or by other code, the report is made.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from swe_cli.commands.shared import Page
from swe_cli.data.cache import cache_folder
from swe_cli.errors import CorruptFileError, StorageError
from swe_cli.files import digest, read_json, sha256, write_json
from swe_cli.store import provenance

TEXTS = ("config.json", "cells.json", "failed.json", "compare.json")  # a resumed sweep writes anew


def keep(this: Page, own: Path, folder: Path, options: object, make: Callable[[], None]) -> None:
    """Make a report on the run in ``own`` into ``folder``; or say what it said, where the same was
    asked, and neither what it is made of (all that lies in runs and cells) nor what it made is
    another since.

    Always made is that of a checkout with changes, of one's own YAMLs and code, in which anything
    was warned of, and one that is asked for as values.
    """
    told, console = provenance(), this.console
    if this.root.extra or this.form is not None or str(told["commit"]).endswith("-dirty"):
        make()
        return
    seen = console.width, console.color_system, console.is_terminal, this.quiet
    asked = digest([told["versions"], told["commit"], this.words, options, seen])
    of = {"asked": asked, "read": digest([*_read(own)])}
    name = digest([this.command, str(folder.absolute())])[:16]
    path = cache_folder() / "reports" / f"{name}.json"
    with suppress(CorruptFileError, LookupError, TypeError):  # it is made anew
        kept = read_json(path)
        if kept["of"] == of | {"made": digest([*_made(folder)])}:
            console.file.write(kept["said"])
            return
    warned: list[object] = []
    with warnings.catch_warnings():
        show = warnings.showwarning

        def noticed(message: Warning | str, *about: Any, **more: Any) -> None:
            warned.append(message)
            show(message, *about, **more)

        warnings.showwarning = noticed
        console.record = True
        make()
    said = console.export_text(styles=console.is_terminal)
    if not warned:
        with suppress(StorageError):
            write_json(path, {"of": of | {"made": digest([*_made(folder)])}, "said": said})


State = tuple[str, int, int]  # of a file: its path, size, and when it was written


def _read(own: Path) -> Iterator[State | str]:
    """What lies in runs and cells; of a sweep itself, what it is of."""
    for run in sorted(os.scandir(own.parent), key=lambda of: of.name):
        if run.name == "cells":
            for cell in sorted(of.name for of in os.scandir(run) if of.name[0] != "."):
                yield from _states(f"{run.path}/{cell}")
        elif run.name != own.name:
            yield from _states(run.path)
    if (own / "cells.json").is_file():
        yield from ((own / name).read_text() for name in TEXTS if (own / name).is_file())
    else:  # a training
        yield from _states(own)


def _states(folder: Path | str) -> Iterator[State]:
    """Of the files in a folder that are not hidden; none where it is no folder."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as found:
        for file in sorted(found, key=lambda of: of.name):
            if not file.name.startswith(".") and file.is_file():
                state = file.stat()
                yield file.path, state.st_size, state.st_mtime_ns


def _made(folder: Path) -> Iterator[tuple[str, str]]:
    """Names and contents, since another command makes the same files anew; of PDFs, which differ
    each time, names.
    """
    for path in sorted([*folder.glob("[!.]*.*"), *folder.glob("figures/[!.]*.*")]):
        if path.suffix != ".json":
            yield str(path), "" if path.suffix == ".pdf" else sha256(path)
