"""Trackio, Hugging Face's tracker: called as Weights & Biases are."""

from swe_cli.trackers.wandb import WandB


class Trackio(WandB):
    """A run of the same name in a project, on this machine; with ``space_id``, on that Space."""

    package = "trackio"

    def __init__(self, *, project: str, space_id: str | None) -> None:
        self.where = {"project": project, "space_id": space_id}
