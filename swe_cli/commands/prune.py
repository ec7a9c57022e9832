"""swe prune: a finished training run → one cut → a pruned model and its row."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from swe_cli.commands.progress import Stop, Watcher
from swe_cli.commands.shared import page
from swe_cli.config import component
from swe_cli.errors import Interrupted, UsageError
from swe_cli.experiments.cell import Watch, run_cell
from swe_cli.experiments.model import TrainedRun, check_kept
from swe_cli.experiments.plan import cells_of
from swe_cli.experiments.spec import check_early, check_recorded, check_spec, cut_spec, note_on
from swe_cli.experiments.training import check_roles_of, roles_of
from swe_cli.report.row import print_row
from swe_cli.store import Run


def prune(
    words: Sequence[str],
    config_dir: Path | None,
    *,
    ratio: str | None,
    rate: str | None,
    fuse: str | None,
    wait: bool,
    show: bool,
    quiet: bool,
) -> None:
    """Cut one run once; keep the model, print what it lost."""
    options = {"ratio": ratio, "rate": rate, "fuse": fuse}
    words = [*words, *(f"{key}={value}" for key, value in options.items() if value is not None)]
    keys = [word.partition("=")[0] for word in words]
    for key in options:
        if keys.count(key) > 1:
            raise UsageError(f"The {key} is given twice.", f"Keep one: --{key} or {key}=…")
    if "rate" in keys and "allocation" not in keys:
        words = [*words, "allocation=sigma"]  # the only one that knows what a rate is
    this = page("prune", words, config_dir, runs=1)
    if show:
        this.print_config()
        return
    spec = cut_spec(this.composed, this.root, None)
    check_spec(spec, this.composed, keys)
    run = this.chosen_run(("train",), "Train one: swe train model=gpt_nano", "Cutting", quiet=quiet)
    run.check_finished()
    trained = run.config["identity"]
    model = component("model", trained["model"]["name"], this.root)
    roles = this.composed.values["roles"]
    check_roles_of(model, [] if roles == "all" else [roles], "roles")
    spec = cut_spec(this.composed, this.root, roles_of(model))
    check_recorded(spec, run.manifest["tracker"]["statistics"], run.name)
    steps = trained["training"]["steps"]
    check_early(spec, steps)
    check_kept(run, [] if spec.plan.at_step is None else [spec.plan.at_step])
    values = this.composed.values
    source = TrainedRun(run.path, this.root, values["device"], values["threads"])
    cell = cells_of(spec, source, trained)[spec.kind]
    name = f"prune-{trained['model']['name']}-{spec.method_name}-{cell.hash[:8]}"
    pruned = Run(run.path.parent / name)
    cell = replace(cell, model_to=pruned.path / "model.safetensors")
    watcher = Watcher(quiet)
    if note := note_on(spec, keys):
        watcher.say(note)
    rest = 0 if spec.plan.at_step is None else steps - spec.plan.at_step
    with Stop().listening() as stop, watcher.showing(), pruned.hold(wait):
        pruned.begin({"training": run.name, "cell": cell.hash, "cut": cell.config})
        try:
            fused = 0 if spec.fuse is None else spec.recovery_steps // 2
            progress = watcher.recovery(rest + spec.recovery_steps + fused)
            row = run_cell(cell, Watch(progress, stop))
        except Interrupted:
            raise
        except Exception:
            pruned.discard()  # the same command would meet the same
            raise
        pruned.finish(["model.safetensors"], row=row.to_json())
    this.console.print(pruned.name, markup=False)
    print_row(this.console, row)
    this.console.print(f"  next: swe report {run.name}", markup=False, soft_wrap=True)
