"""TensorBoard: event files in the folder of each run."""

from pathlib import Path

from swe_cli.contracts import Plain, Points, Tracker
from swe_cli.errors import optional


class TensorBoard(Tracker):
    """To be looked at by ``tensorboard --logdir results/runs``."""

    def start(self, name: str, folder: Path, config: Plain, step: int) -> None:
        asks = "tracker=tensorboard", "tensorboard"
        optional("tensorboard", *asks)
        writer = optional("torch.utils.tensorboard", *asks).SummaryWriter
        # What a killed process had written from that step on is not shown.
        self.writer = writer(folder / "tensorboard", purge_step=step)

    def log(self, points: Points) -> None:
        for step, metrics in points:
            for name, value in metrics.items():
                self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def table(self, path: Path) -> None:
        self.writer.add_text("table", path.with_suffix(".md").read_text(encoding="utf-8"))

    def finish(self) -> None:
        self.writer.close()
