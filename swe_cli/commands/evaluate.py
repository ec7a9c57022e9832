"""swe evaluate: the full deterministic pass over a trained or pruned run."""

from collections.abc import Sequence
from pathlib import Path

from swe_cli.commands.shared import TRAIN, page, pruned_row, training_of
from swe_cli.controls import DENSE
from swe_cli.experiments.cell import evaluate_pruned, run_cell
from swe_cli.experiments.model import TrainedRun
from swe_cli.experiments.plan import cells_of
from swe_cli.experiments.spec import ControlSpec
from swe_cli.report.terminal import print_row


def evaluate(words: Sequence[str], config_dir: Path | None, *, show: bool, quiet: bool) -> None:
    """Evaluate the named run, or the newest finished one, and print what was measured."""
    this = page("evaluate", words, config_dir, runs=1)
    if show:
        this.print_config()
        return
    values, evaluation = this.composed.values, this.composed["evaluation"]
    run = this.chosen_run(("train", "prune"), TRAIN, "Evaluating", quiet=True)
    training = training_of(run)
    source = TrainedRun(training.path, this.root, values["device"], values["threads"])
    if run.kind == "prune":
        stored, weights = pruned_row(run), run.tensors("model.safetensors")
        row = evaluate_pruned(stored, source.open(), weights, evaluation.instance)
    else:
        run.check_finished()
        spec = ControlSpec(control=DENSE, evaluation=evaluation)
        row = run_cell(cells_of(spec, source, run.config["identity"])[DENSE.kind])
    this.print(run.name)
    print_row(this.console, row)
