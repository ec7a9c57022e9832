"""TensorBoard: event files in the folder of each run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swe_cli.contracts import Tracker
from swe_cli.errors import optional


class TensorBoard(Tracker):
    """To be looked at by ``tensorboard --logdir results/runs``."""

    def start(self, name: str, folder: Path, config: Mapping[str, Any], step: int) -> None:
        asks = "tracker=tensorboard", "tensorboard"
        optional("tensorboard", *asks)
        writer = optional("torch.utils.tensorboard", *asks).SummaryWriter
        # What a killed process had written from that step on is not shown.
        self.writer = writer(folder / "tensorboard", purge_step=step)

    def log(self, points: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        for step, metrics in points:
            for name, value in metrics.items():
                self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def table(self, rows: Sequence[Mapping[str, Any]]) -> None:
        names = [name for name in rows[0] if any(row[name] is not None for row in rows)]
        cells = [names, ["---"] * len(names), *([row[name] for name in names] for row in rows)]
        lines = (" | ".join("" if c is None else str(c) for c in line) for line in cells)
        self.writer.add_text("table", "\n".join(lines))

    def finish(self) -> None:
        self.writer.close()
