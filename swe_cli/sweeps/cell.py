"""What one row stands for, where it is kept, and how its parts are built."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swe_cli.compose import ConfigRoot, described_options, part
from swe_cli.evaluation.measure import Measured
from swe_cli.files import read_json, read_tensors
from swe_cli.records import Kind, Row
from swe_cli.runs import identity


@dataclass(frozen=True)
class Cell:
    """What one row stands for. ``config`` is plain: the training's hash, the cut, the evaluation.

    ``training`` is the training run's path; ``model_to`` a file to keep the pruned model in;
    ``reads`` are the cells its deltas are measured against, by kind.
    """

    kind: Kind
    training: Path
    config: Mapping[str, Any]
    root: ConfigRoot
    device: str = "auto"
    threads: int | None = None
    model_to: Path | None = None
    reads: Mapping[str, "Cell"] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        return identity(self.config)

    @property
    def folder(self) -> Path:
        return self.training.parent / "cells" / self.hash

    @property
    def done(self) -> bool:
        files = [self.folder / "row.json", self.folder / "windows.safetensors", self.model_to]
        return all(file is None or file.is_file() for file in files)

    def row(self) -> Row:
        """The stored row of a cell that is done."""
        return Row.from_json(read_json(self.folder / "row.json"))

    def windows(self) -> Measured:
        """Every window of a cell that is done: what deltas are paired over."""
        return Measured.from_tensors(read_tensors(self.folder / "windows.safetensors"))

    def built(self, group: str) -> Any:
        """What the cell's own configuration says of a group."""
        return build(group, self.config[group], self.root)


def build(group: str, described: Mapping[str, Any], root: ConfigRoot) -> Any:
    """Make what a stored description says."""
    return part(group, described["name"], described_options(described), root).build()
