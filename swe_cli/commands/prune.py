"""swe prune: a finished training run → one cut → a pruned model and its row."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from swe_cli.commands.progress import Stop, Watcher
from swe_cli.commands.shared import TRAIN, page
from swe_cli.config import component
from swe_cli.errors import Interrupted, UsageError
from swe_cli.experiments.cell import Watch, run_cell
from swe_cli.experiments.model import TrainedRun, check_kept
from swe_cli.experiments.plan import cells_of
from swe_cli.experiments.spec import check_early, check_recorded, check_spec, cut_spec, note_on
from swe_cli.experiments.training import check_roles_of, roles_of
from swe_cli.report.terminal import print_row
from swe_cli.store import Run


def prune(
    words: Sequence[str],
    config_dir: Path | None,
    *,
    wait: bool,
    show: bool,
    quiet: bool,
    **amounts: str | None,
) -> None:
    """Cut one run once; keep the model, print what it lost. ``amounts``: ratio, rate, fuse."""
    words = [*words, *(f"{key}={value}" for key, value in amounts.items() if value is not None)]
    keys = [word.partition("=")[0] for word in words]
    for key in amounts:
        if keys.count(key) > 1:
            raise UsageError(f"The {key} is given twice.", f"Keep one: --{key} or {key}=…")
    if "rate" in keys and "allocation" not in keys:
        words = [*words, "allocation=sigma"]  # the only one that knows what a rate is
    this = page("prune", words, config_dir, runs=1)
    if show:
        this.print_config()
        return
    check_spec(cut_spec(this.composed, this.root, None), this.composed, keys)
    run = this.chosen_run(("train",), TRAIN, "Cutting", quiet=quiet)
    run.check_finished()
    trained, values = run.config["identity"], this.composed.values
    model = component("model", trained["model"]["name"], this.root)
    check_roles_of(model, values["roles"], "roles")
    spec = cut_spec(this.composed, this.root, roles_of(model))
    check_recorded(spec, run.manifest["tracker"]["statistics"], run.name)
    steps, at_step = trained["training"]["steps"], spec.plan.at_step
    check_early(spec, steps)
    check_kept(run, [] if at_step is None else [at_step])
    source = TrainedRun(run.path, this.root, values["device"], values["threads"])
    cell = cells_of(spec, source, trained)[spec.kind]
    name = f"prune-{trained['model']['name']}-{spec.method_name}-{cell.hash[:8]}"
    pruned = Run(run.path.parent / name)
    cell = replace(cell, model_to=pruned.path / "model.safetensors")
    watcher = Watcher(quiet)
    if note := note_on(spec, keys):
        watcher.say(note)
    steps = spec.recovery_steps + (0 if at_step is None else steps - at_step)
    steps += 0 if spec.fuse is None else spec.recovery_steps // 2
    with Stop().listening() as stop, watcher.showing(), pruned.hold(wait):
        pruned.begin({"training": run.name, "cell": cell.hash, "cut": cell.config})
        try:
            row = run_cell(cell, Watch(watcher.recovery(steps), stop))
        except Interrupted:
            raise
        except Exception:
            pruned.discard()  # the same command would meet the same
            raise
        pruned.finish(["model.safetensors"], row=row.to_json())
    this.print(pruned.name)
    print_row(this.console, row)
    this.print(f"  next: swe report {run.name}")
