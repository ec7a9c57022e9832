"""Death at a chosen rename: what carries its final name must be whole all the same."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from unittest.mock import patch

from swe_cli import files
from swe_cli.files import read_directory
from swe_cli.store import Run

Side = Literal["before", "after"]


class Killed(BaseException):
    """Not an Exception: nothing may catch it and clean up."""


class Renames:
    """How many renames there were."""

    count = 0


@contextmanager
def dying_at(index: int | None = None, side: Side = "before") -> Iterator[Renames]:
    """Die just before or just after the ``index``-th rename (from 0); None only counts."""
    renames, replace = Renames(), os.replace

    def rename(source, target):
        number = renames.count
        renames.count += 1
        if number == index and side == "before":
            raise Killed
        replace(source, target)
        if number == index:
            raise Killed

    with patch.object(os, "replace", rename), patch.object(files, "_sync"):  # no disk is pulled out
        yield renames


def assert_whole(run: Run) -> None:
    """Every file that carries its final name can be read and is what its hash says."""
    for path in (run.path / "checkpoints").glob("step-*"):
        read_directory(path)
    if run.exists:
        assert run.config
    if run.finished:
        for name in run.manifest["files"]:
            if name.endswith(".safetensors"):
                run.tensors(name)
