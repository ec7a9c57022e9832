"""Weights & Biases."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from swe_cli.contracts import Tracker
from swe_cli.errors import optional


class WandB(Tracker):
    """A run of the same name in a project; ``mode`` offline keeps it in its folder until synced."""

    def __init__(
        self, *, project: str, entity: str | None, mode: Literal["online", "offline"] | None
    ) -> None:
        self.where = {"project": project, "entity": entity, "mode": mode}

    def start(self, name: str, folder: Path, config: Mapping[str, Any], step: int) -> None:
        self.wandb = optional("wandb", "tracker=wandb", "wandb")
        about = {"name": name, "dir": str(folder), "config": dict(config)}
        self.run = self.wandb.init(id=name, resume="allow", **about, **self.where)

    def log(self, points: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        for step, metrics in points:
            self.run.log(metrics, step=step)

    def table(self, rows: Sequence[Mapping[str, Any]]) -> None:
        data = [list(row.values()) for row in rows]
        self.run.log({"table": self.wandb.Table(columns=list(rows[0]), data=data)})

    def finish(self) -> None:
        self.run.finish()
