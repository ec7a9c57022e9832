"""swe train, prune, evaluate, generate: one model at a time."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.columns import Columns
from rich.panel import Panel
from rich.text import Text
from safetensors.torch import load_file

from swe_cli.commands.shared import Page, listening, pruned_row
from swe_cli.config import compose
from swe_cli.contracts import Questions
from swe_cli.controls import BY_KIND, DENSE
from swe_cli.errors import CorruptFileError, Interrupted, UsageError
from swe_cli.evaluation.cost import SkipZeros, batch_that_fits, measured_cost
from swe_cli.evaluation.measure import answers_of
from swe_cli.evaluation.tasks import run_task
from swe_cli.experiments.cell import Cell, evaluate_pruned, run_cell
from swe_cli.experiments.ensure import ensure_trained
from swe_cli.experiments.jobs import mended, run_mended
from swe_cli.experiments.model import TrainedModel
from swe_cli.experiments.spec import Spec, check_spec, cut_spec
from swe_cli.experiments.sweep import cells_of, controls_by
from swe_cli.experiments.training import TrainingSpec, roles_of, stored_training, training_spec
from swe_cli.files import compressed, digest, write_bytes, write_json
from swe_cli.models.gpt import generate as continue_tokens
from swe_cli.records import Tensors
from swe_cli.report.console import print_table, say
from swe_cli.report.costs import print_costs, print_layers
from swe_cli.report.terminal import model_card, print_row
from swe_cli.report.text import number
from swe_cli.store import Run, provenance, training_of
from swe_cli.training.run import check_kept
from swe_cli.training.tracker import unrecorded

COMPRESSED = "model.compressed.safetensors"


def train(this: Page) -> None:
    """Train and track; print the run's name, best and final validation loss."""
    spec = training_spec(this.composed, this.root, this.results)
    for note in spec.dataset.notes:
        this.watcher.say(note)
    with listening(this.resume) as stop, this.watcher.showing():
        trained = ensure_trained(spec, this.watcher, stop, this.wait)
    if not trained:
        this.watcher.say("Already trained.")
    results = spec.run.manifest["results"]
    best, final = results["best_validation_loss_nats"], results["final_validation_loss_nats"]
    this.print(spec.run.name)
    this.print(f"  best validation loss   {best:.4f} nats at step {results['best_step']}")
    this.print(f"  final validation loss  {final:.4f} nats at step {results['steps']}")
    lived = "swe" if spec.bases[1:] else "magnitude"
    this.print(f"  next: swe prune {this.named(spec.run)} --ratio 0.5 criterion={lived}")
    this.result({"run": spec.run.name, "path": spec.run.path, **results})


def prune(this: Page) -> None:
    """Cut a finished training once; keep the model, print what it lost."""
    typed, values = [word.partition("=")[0] for word in this.words], this.composed.values
    check_spec(cut_spec(this.composed, this.root, None), this.composed, typed)
    asked = [BY_KIND[kind] for kind in values["controls"]]
    for control in asked:
        if control.training:
            why = f"{control.kind} is a training of its own, and swe prune trains none."
            raise UsageError(why, f"Type: swe sweep controls=[{control.kind}]")
    run = (came := _as_it_is(this)) or this.chosen_run(("train",), "Cutting", quiet=this.quiet)
    training = stored_training(run, this.root, values["device"], values["threads"])
    model, composed = training.composed["model"], this.composed
    if not came:  # and what goes with its model is not typed
        composed = compose("prune", this.tokens.overrides, this.root, f"model={model.name}")
    spec = cut_spec(composed, this.root, roles_of(model))
    tracker, sources = run.manifest["tracker"], spec.sources
    stale = unrecorded(tracker, sources)
    steps, at_step = training.composed["training"].instance.steps, spec.plan.at_step
    for one in (spec, *map(spec.judged_by, asked)):
        one.check_early(steps, "trajectory" in training.config["identity"])
        one.check_recorded({*tracker["statistics"]} - {*stale}, run.name)
    check_kept(run, at_step, sources)
    of_asked = dict.fromkeys(values["controls"], training)
    cells = cells_of(spec, training, controls_by(spec, training, False, of_asked))
    cell = cells[spec.kind]
    pruned = Run(run.path.parent / f"prune-{training.label}-{spec.method_name}-{cell.hash[:8]}")
    cell = replace(cell, model_to=pruned.path / "model.safetensors")
    if note := spec.note(typed):
        this.watcher.say(note)
    steps = spec.recovery_steps + (0 if at_step is None else steps - at_step)
    steps += 0 if spec.fuse is None else spec.recovery_steps // 2
    with listening() as stop, this.watcher.showing(), pruned.hold(this.wait):
        already = _whole(this, pruned)
        pruned.begin({"training": run.name, "cell": cell.hash, "cut": cell.config})
        try:
            row = run_mended(cell, stop, this.watcher, [this.watcher.recovery(steps)])
            controls = [run_mended(cells[c.kind], stop, this.watcher) for c in asked]
        except Interrupted:
            raise
        except Exception:
            pruned.discard()  # the same command would meet the same
            raise
        if not already or pruned.manifest["row"] != row.to_json():
            pruned.finish(["model.safetensors"], row=row.to_json())
    if already:
        this.watcher.say("Already cut.")
    if spec.ratio and row.mean("sparsity") == 0:
        this.watcher.say(f"Nothing was cut: {spec.ratio:g} of what there is rounds to none.")
    this.print(pruned.name)
    for one_row in (row, *controls):
        print_row(this.console, one_row)
    this.print(f"  next: swe report {this.named(run)}")
    rows = [one_row.columns() | one_row.varied for one_row in (row, *controls)]
    this.result({"run": pruned.name, "path": pruned.path, "rows": rows})


def _whole(this: Page, run: Run) -> bool:
    """Whether a cut is there as it was made; what is damaged of it is set aside."""
    try:
        return run.finished and bool(run.tensors("model.safetensors"))
    except CorruptFileError as error:
        this.watcher.say(mended(error))
        return False


def _as_it_is(this: Page) -> Run | None:
    """The run of a model that is typed in place of one, to be cut as it is."""
    if "model" not in this.composed.components:
        return None
    if steps := this.composed["training"].instance.steps:
        why = f"swe prune trains nothing, and this model would train {steps} steps."
        raise UsageError(why, "Train it first, swe train; or cut it as it is, training.steps=0")
    if this.tokens.runs:
        why = f"{this.tokens.runs[0]} has a model; swe prune takes a run or a model=."
        raise UsageError(why, "Leave one of them out.")
    spec = training_spec(this.composed, this.root, this.results)
    with listening(this.resume) as stop, this.watcher.showing():
        ensure_trained(spec, this.watcher, stop, this.wait)
    return spec.run


def _meant(this: Page, doing: str, elsewhere: object = False) -> tuple[Run, TrainingSpec]:
    """The run that is meant, and its training; ``elsewhere``: one that other libraries can open."""
    values, run = this.composed.values, this.chosen_run(("train", "prune"), doing)
    training = stored_training(training_of(run), this.root, values["device"], values["threads"])
    if elsewhere and not hasattr(training.composed["model"].target, "save"):
        why = f"{run.name} is a {training.label}, which no other library can open."
        raise UsageError(why, "Name a run of model=huggingface: swe runs")
    return run, training


def evaluate(this: Page, *, tasks: Sequence[Path] | None, runtime: str) -> None:
    """The full deterministic pass over a run, or else ``tasks``; print what was measured.

    ``runtime``: ``csr`` computes layers that are mostly zeros without them, where that is faster.
    With ``costs=measured`` also how fast it is, beside the dense model.
    """
    evaluation, (run, training) = this.composed["evaluation"], _meant(this, "Evaluating", tasks)
    if run.kind != "prune" and (runtime != "dense" or this.composed.values["costs"] == "measured"):
        why = f"{run.name} is dense: nothing was cut of it that could make it faster."
        raise UsageError(why, "Name a run of swe prune: swe runs")
    measured: list[dict[str, Any]] = []
    for file in tasks or ():
        (trained := training.open()).load(run.tensors("model.safetensors"))
        with trained.machine.precision():
            found = run_task(trained.model, file, evaluation.instance.batch_size)
        path = run.path / "tasks" / f"{file.stem}-{digest(found['files'])[:8]}.json"
        write_json(path, {**found, **provenance()})
        rows = [[f"{task} {m}", *map(number, of), str(n)] for task, m, *of, n in found["rows"]]
        print_table(this.console, [path.stem, "mean", "± error", "items"], rows)
        measured.append({"run": run.name, **found})
    if tasks:
        this.result(measured)
        return
    sparse = None
    if run.kind != "prune":
        row = run_cell(Cell(Spec(control=DENSE, evaluation=evaluation), training))
    else:
        (trained := training.open()).load(run.tensors("model.safetensors"))
        size = batch_that_fits(trained, evaluation.instance.batch_size)
        dense = trained.teacher("final")  # before products are replaced, which cannot be copied
        sparse = SkipZeros(trained, size * trained.model.context) if runtime == "csr" else None
        row = evaluate_pruned(pruned_row(run), trained, evaluation.instance)
    this.print(run.name)
    print_row(this.console, row)
    found = {"run": run.name, **row.columns(), **row.varied}
    if sparse is not None:
        print_layers(this.console, sparse.layers)
        found["layers"] = sparse.layers
    if this.composed.values["costs"] == "measured":
        timed = measured_cost(trained, dense, size)
        write_json(run.path / f"costs-{runtime}.json", timed)
        print_costs(this.console, timed)
        found |= timed
    this.result(found)


def export(this: Page, *, folder: Path, dtype: str | None, compress: bool) -> None:
    """Write a run as a folder that ``from_pretrained`` opens, if it is of a model of transformers.

    ``compress``: its weights without their zeros, as one file, and what the model is; of any run.
    """
    run, training = _meant(this, "Exporting", elsewhere=not compress)
    folder, kept, how = folder.expanduser(), run.path, ""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already.", "Name a new folder.")
    (trained := training.open()).load(run.tensors("model.safetensors"))
    if hasattr(trained.model, "save"):
        kept, how = folder, trained.model.save(folder, dtype)  # type: ignore[operator]
        how = f"\n  open it: {how}.from_pretrained({str(folder)!r})"
    if compress:
        files = sorted(kept.glob("model*.safetensors"))
        tensors = {name: t for file in files for name, t in load_file(file).items()}
        write_bytes(path := folder / COMPRESSED, compressed(tensors))
        for file in [*files, *folder.glob("*.index.json")] if kept == folder else ():
            file.unlink()
        share = path.stat().st_size / sum(tensor.nbytes for tensor in tensors.values())
        if kept != folder:  # what the model is, of whoever makes it again
            write_json(folder / "config.json", training.config["identity"])
        how = f"\n  {share:.2f} of its bytes; read it: swe_cli.decompressed({str(path)!r})"
    if run.kind == "prune":
        write_bytes(folder / "README.md", model_card(pruned_row(run), dtype).encode())
    this.print(f"{folder}{how}")


def generate(this: Page, *, prompt: str, image: Path | None, **sampling: Any) -> None:
    """Continue ``prompt``, or answer it looking at ``image``; a cut model beside the dense one."""
    if not (prompt := _in_utf8(prompt)):
        raise UsageError("The prompt is empty.", 'Give a text to continue: --prompt "And"')
    run, training = _meant(this, "Asking")
    trained = training.open()
    models: dict[str, Tensors] = {"dense": trained.weights("final")}
    if run.kind == "prune":
        row = pruned_row(run)
        cut = 100 * (row.mean("sparsity") or 0.0)
        title = f"{row.settings['criterion']}, {cut:.0f} % cut"
        models[title] = run.tensors("model.safetensors")
    asked = isinstance(trained.dataset, Questions)
    width = this.console.width // len(models)
    panels = []
    for title, weights in models.items():
        trained.load(weights)
        shown = trained, prompt, image
        text = _answer(*shown) if asked else _continuation(*shown, **sampling)
        panels.append(Panel(Text(prompt, "bold") + text, title=title, width=width))
    if asked:
        unknown = getattr(getattr(trained.dataset, "tokenizer", None), "unknown", None)
        new = [word for word in prompt.split() if unknown in trained.dataset.encode(word)]
        if new:
            say(this.console, f"Words that {trained.name} never saw: {', '.join(new)}.")
    this.console.print(Columns(panels, padding=0, expand=False))


def _in_utf8(prompt: str) -> str:
    """A prompt as the UTF-8 it was typed in, whatever the locale took it for."""
    try:
        return os.fsencode(prompt).decode("utf-8")
    except UnicodeError:
        if not any("\ud800" <= character <= "\udfff" for character in prompt):
            return prompt
        raise UsageError(
            "The prompt is neither UTF-8 nor written in what the locale of this terminal says.",
            "Set the terminal to UTF-8, and type: export LC_ALL=C.UTF-8",
        ) from None


def _answer(trained: TrainedModel, question: str, image: Path | None) -> Text:
    assert isinstance(trained.dataset, Questions)
    example = '--prompt "what is the sum?"'
    if image is None:
        reason = f"{trained.name} answers questions about images."
        raise UsageError(reason, f"Name one: --image FILE {example}")
    if not question.strip():
        raise UsageError("There is no question.", f"Ask one: {example}")
    ((answer, *_),) = answers_of(trained, trained.dataset.about(image.expanduser(), question))
    return Text(f" {answer}") if answer else Text(" (no answer)", "dim")


def _continuation(
    trained: TrainedModel, prompt: str, image: Path | None, *, seed: int, **how: Any
) -> Text:
    if image is not None:
        reason = f"{trained.name} is a text model; it looks at no image."
        raise UsageError(reason, "Leave --image out.")
    trained.model.eval()
    ids, generator = trained.dataset.encode(prompt), torch.Generator().manual_seed(seed)
    grown = continue_tokens(trained.model, ids, generator=generator, **how)
    return Text(trained.dataset.decode(grown[len(ids) :]))
