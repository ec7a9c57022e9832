"""swe train: overrides → compose → train and track."""

from collections.abc import Sequence
from pathlib import Path

from swe_cli.commands.shared import (
    Stop,
    Watcher,
    config_root,
    output,
    print_config,
    read_words,
    typed,
)
from swe_cli.compose import compose
from swe_cli.sweeps.build import plan_training, results_root
from swe_cli.sweeps.execute import ensure_trained


def train(
    words: Sequence[str], config_dir: Path | None, *, wait: bool, show: bool, quiet: bool
) -> None:
    """Train and track; print the run's name, best and final validation loss."""
    root, tokens = config_root(config_dir), read_words("train", words, runs=0)
    composed = compose("train", tokens.overrides, root)
    console = output()
    if show:
        print_config(console, composed)
        return
    results = results_root(composed.values["results_dir"])
    plan = plan_training(composed, root, results)
    watcher = Watcher(quiet)
    with Stop().listening() as stop, watcher.showing():
        resume = typed("train", words, config_dir)
        trained = ensure_trained(plan, results, watcher, stop, resume=resume, wait=wait)
    run = plan.run(results)
    found = run.manifest["results"]
    if not trained:
        watcher.say("Already trained.")
    console.print(run.name, markup=False)
    best, final = found["best_validation_loss_nats"], found["final_validation_loss_nats"]
    console.print(f"  best validation loss   {best:.4f} nats at step {found['best_step']}")
    console.print(f"  final validation loss  {final:.4f} nats at step {found['steps']}")
    console.print(f"  next: swe prune {run.name} --ratio 0.5", markup=False, soft_wrap=True)
