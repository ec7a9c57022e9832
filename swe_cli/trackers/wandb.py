"""Weights & Biases."""

from pathlib import Path
from typing import Any, Literal

import pandas as pd

from swe_cli.contracts import Plain, Points, Tracker
from swe_cli.errors import optional


class WandB(Tracker):
    """A run of the same name in a project; ``mode`` offline keeps it in its folder until synced."""

    package = "wandb"

    def __init__(
        self, *, project: str, entity: str | None, mode: Literal["online", "offline"] | None
    ) -> None:
        self.where: dict[str, Any] = {"project": project, "entity": entity, "mode": mode}

    def start(self, name: str, folder: Path, config: Plain, step: int) -> None:
        self.module = optional(self.package, f"tracker={self.package}", self.package)
        own = {"id": name, "dir": str(folder)} if "mode" in self.where else {}
        self.module.init(name=name, config=dict(config), resume="allow", **self.where, **own)

    def log(self, points: Points) -> None:
        for step, metrics in points:
            self.module.log(metrics, step=step)

    def table(self, path: Path) -> None:
        self.module.log({"table": self.module.Table(dataframe=pd.read_csv(path))})

    def finish(self) -> None:
        self.module.finish()
