"""swe evaluate: the full deterministic pass over a trained or pruned run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swe_cli.commands.shared import (
    check_finished,
    chosen_run,
    config_root,
    output,
    print_config,
    pruned_row,
    read_words,
    training_of,
)
from swe_cli.compose import ConfigRoot, compose
from swe_cli.records import Row
from swe_cli.reporting.row import print_row
from swe_cli.runs import Run, identity
from swe_cli.sweeps.build import results_root
from swe_cli.sweeps.cells import evaluate_model, run_cell
from swe_cli.sweeps.plan import cells_of


def evaluate(words: Sequence[str], config_dir: Path | None, *, show: bool, quiet: bool) -> None:
    """Evaluate the named run, or the newest finished one, and print what was measured."""
    root, tokens = config_root(config_dir), read_words("evaluate", words, runs=1)
    composed = compose("evaluate", tokens.overrides, root)
    console = output()
    if show:
        print_config(console, composed)
        return
    results = results_root(composed.values["results_dir"])
    run = chosen_run(tokens, results, ("train", "prune"), "Train one: swe train model=gpt_nano")
    machine = {key: composed.values[key] for key in ("device", "threads")}
    measured = _evaluate(run, composed["evaluation"].describe(), machine, root)
    console.print(run.name, markup=False)
    print_row(console, measured)


def _evaluate(
    run: Run, evaluation: Mapping[str, Any], machine: Mapping[str, Any], root: ConfigRoot
) -> Row:
    if run.kind == "train":
        check_finished(run)
        described = {"evaluation": evaluation, "recovery": {"name": "none"}}
        training_hash = identity(run.config["identity"])
        trained_on = run.config["identity"]["machine"]
        cells = cells_of(described, training_hash, run.path, root, machine, trained_on)
        return run_cell(cells["dense"])
    stored = pruned_row(run)
    training = training_of(run)
    weights = run.tensors("model.safetensors")
    return evaluate_model(stored, training, weights, evaluation, root, **machine)
