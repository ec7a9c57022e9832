"""swe train: overrides → compose → train and track."""

from collections.abc import Sequence
from pathlib import Path

from swe_cli.commands.progress import Stop, Watcher
from swe_cli.commands.shared import page, typed
from swe_cli.experiments.training import ensure_trained, training_spec


def train(
    words: Sequence[str], config_dir: Path | None, *, wait: bool, show: bool, quiet: bool
) -> None:
    """Train and track; print the run's name, best and final validation loss."""
    this = page("train", words, config_dir)
    if show:
        this.print_config()
        return
    spec = training_spec(this.composed, this.root, this.results)
    watcher, resume = Watcher(quiet), typed("train", words, config_dir)
    for note in spec.notes:
        watcher.say(note)
    with Stop().listening() as stop, watcher.showing():
        trained = ensure_trained(spec, watcher, stop, resume=resume, wait=wait)
    if not trained:
        watcher.say("Already trained.")
    results = spec.run.manifest["results"]
    best, final = results["best_validation_loss_nats"], results["final_validation_loss_nats"]
    this.print(spec.run.name)
    this.print(f"  best validation loss   {best:.4f} nats at step {results['best_step']}")
    this.print(f"  final validation loss  {final:.4f} nats at step {results['steps']}")
    this.print(f"  next: swe prune {spec.run.name} --ratio 0.5")
