"""What a report said, kept in the user's cache, and said again while nothing it is made of changes.

It is a copy at most: without it, or by other code, the report is made.
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
MADE = (".csv", ".html", ".md", ".parquet", ".pdf", ".png", ".svg")


def keep(this: Page, own: Path, folder: Path, options: object, make: Callable[[], None]) -> None:
    """Make a report on the run in ``own`` into ``folder``; or say what it said, where the same was
    asked, and neither what it is made of (cells, trainings, code) nor what it made is another.

    Always made is that of a checkout with changes, of one's own YAMLs and code, in which anything
    was warned of or is missing (``console.record`` is off then), and one asked for as values.
    """
    told, console = provenance(), this.console
    bare = console.no_color and console.is_terminal  # which a record does not know
    dirty = str(told["commit"]).endswith("-dirty")
    if this.root.extra or this.form is not None or dirty or bare:
        make()
        return
    here = Path(__file__).parents[1].rglob("*.py")
    code = told["versions"], told["commit"] or max(path.stat().st_mtime_ns for path in here)
    seen = console.width, console.color_system, console.is_terminal, console.encoding, this.quiet
    of = {"asked": digest([code, this.words, str(options), seen])}
    of["read"] = digest([*_read(own, folder)])
    name = digest([this.command, str(folder.absolute())])[:16]
    path = cache_folder() / "reports" / f"{name}.json"
    with suppress(CorruptFileError, LookupError, TypeError):  # it is made anew
        kept = read_json(path)
        if kept["of"] == of | {"made": digest([*_made(folder)])}:
            try:
                console.file.write(kept["said"])
                console.file.flush()
            except BrokenPipeError:
                console.on_broken_pipe()
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
    if console.record and not warned:
        said = console.export_text(styles=console.color_system is not None)
        with suppress(StorageError):
            write_json(path, {"of": of | {"made": digest([*_made(folder)])}, "said": said})


def _read(own: Path, folder: Path) -> Iterator[object]:
    """What the report is made of: paths, sizes, times; of what a sweep writes anew, contents."""
    cells = own.parent / "cells"
    if (own / "cells.json").is_file():
        names = [entry["cell"] for entry in read_json(own / "cells.json")]
        yield [sha256(own / name) for name in TEXTS if (own / name).is_file()]
        if folder != own:  # of a sweep whose cells are gone, its rows
            yield [*_made(own)]
    else:  # a training, by all that was cut of it
        names = sorted(path.name for path in cells.glob("[!.]*"))
        yield from _states(own)
    for name in names:
        yield from _states(cells / name)
    for run in sorted(own.parent.glob("train-*")):
        # Others may be training meanwhile.
        yield from (of for of in _states(run) if of[0].endswith(("manifest.json", ".safetensors")))


def _states(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Of the files in a folder that are not hidden: path, size, and when they were written."""
    with suppress(OSError), os.scandir(folder) as found:
        for file in sorted(found, key=lambda of: of.name):
            if not file.name.startswith(".") and file.is_file():
                state = file.stat()
                yield file.path, state.st_size, state.st_mtime_ns


def _made(folder: Path) -> Iterator[tuple[str, str]]:
    """Names and contents, since another command makes the same files anew; of PDFs, which differ
    each time, names.
    """
    for path in sorted([*folder.glob("[!.]*.*"), *folder.glob("figures/[!.]*.*")]):
        if path.suffix in MADE and path.is_file():
            yield str(path), "" if path.suffix == ".pdf" else sha256(path)
