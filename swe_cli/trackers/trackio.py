"""Trackio: Hugging Face's tracker, local by default."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swe_cli.contracts import Tracker
from swe_cli.errors import optional


class Trackio(Tracker):
    """A run of the same name in a project; with a ``space_id`` on a Space of Hugging Face."""

    def __init__(self, *, project: str, space_id: str | None) -> None:
        self.where = {"project": project, "space_id": space_id}

    def start(self, name: str, folder: Path, config: Mapping[str, Any], step: int) -> None:
        self.trackio = optional("trackio", "tracker=trackio", "trackio")
        self.trackio.init(name=name, config=dict(config), resume="allow", **self.where)

    def log(self, points: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        for step, metrics in points:
            self.trackio.log(metrics, step=step)

    def table(self, rows: Sequence[Mapping[str, Any]]) -> None:
        import pandas as pd

        self.trackio.log({"table": self.trackio.Table(dataframe=pd.DataFrame(rows))})

    def finish(self) -> None:
        self.trackio.finish()
