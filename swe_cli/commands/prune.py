"""swe prune: a finished training run → one cut → a pruned model and its row."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from swe_cli.commands.shared import (
    Stop,
    Watcher,
    check_finished,
    chosen_run,
    config_root,
    output,
    print_config,
    read_words,
)
from swe_cli.compose import compose, default_part
from swe_cli.errors import Interrupted, UsageError
from swe_cli.pruning.recover import Watch
from swe_cli.reporting.row import print_row
from swe_cli.runs import Run, identity
from swe_cli.sweeps.amounts import (
    check_cut,
    check_early,
    check_recorded,
    describe_cut,
    note_on,
    settled,
    snapshots_of,
)
from swe_cli.sweeps.build import check_roles_of, results_root
from swe_cli.sweeps.cells import judge_of, run_cell
from swe_cli.sweeps.plan import cells_of
from swe_cli.sweeps.subject import check_kept
from swe_cli.sweeps.treatment import extra_steps


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
    amounts = {"ratio": ratio, "rate": rate, "fuse": fuse}
    options = [f"{key}={value}" for key, value in amounts.items() if value is not None]
    root, tokens = config_root(config_dir), read_words("prune", [*words, *options], runs=1)
    overrides = tokens.overrides
    keys = [word.partition("=")[0] for word in overrides]
    for key in amounts:
        if keys.count(key) > 1:
            raise UsageError(f"The {key} is given twice.", f"Keep one: --{key} or {key}=…")
    if "rate" in keys and "allocation" not in keys:
        overrides = (*overrides, "allocation=sigma")  # the only one that knows what a rate is
    composed = settled(compose("prune", overrides, root), root)
    console = output()
    if show:
        print_config(console, composed)
        return
    check_cut(composed, root, keys)
    results = results_root(composed.values["results_dir"])
    run = chosen_run(tokens, results, ("train",), "Train one: swe train model=gpt_nano")
    training_hash = identity(run.config["identity"])
    check_finished(run)
    stored = default_part("model", run.config["identity"]["model"]["name"], root)
    roles = composed.values["roles"]
    check_roles_of(stored, [] if roles == "all" else [roles], "roles")
    recorded = run.manifest["tracker"]["statistics"]
    check_recorded(composed, root, recorded, run.name)
    steps = run.config["identity"]["training"]["steps"]
    check_early(composed, root, steps)
    check_kept(run, snapshots_of(composed))
    machine = {key: composed.values[key] for key in ("device", "threads")}
    trained_on = run.config["identity"]["machine"]
    described = describe_cut(composed, root, stored)
    cell = cells_of(described, training_hash, run.path, root, machine, trained_on)["pruned"]
    model, judge = run.config["identity"]["model"]["name"], cell.config[judge_of(cell.config)]
    pruned = Run(run.path.parent / f"prune-{model}-{judge['name']}-{cell.hash[:8]}")
    cell = replace(cell, model_to=pruned.path / "model.safetensors")
    watcher = Watcher(quiet)
    if note := note_on(composed, keys):
        watcher.say(note)
    watcher.say(f"Cutting {run.name}{'' if tokens.runs else ' (the newest)'}")
    with Stop().listening() as stop, watcher.showing(), pruned.hold(wait):
        pruned.begin({"training": run.name, "cell": cell.hash, "cut": dict(cell.config)})
        hook = watcher.recovery(extra_steps(cell, steps))
        try:
            row = run_cell(cell, Watch(hook, stop))
        except Interrupted:
            raise
        except Exception:
            pruned.discard()  # the same command would meet the same
            raise
        pruned.finish(["model.safetensors"], row=row.to_json())
    console.print(pruned.name, markup=False)
    print_row(console, row)
    console.print(f"  next: swe report {run.name}", markup=False, soft_wrap=True)
