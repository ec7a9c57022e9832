"""swe generate: a prompt continued, or a question about an image answered; dense and pruned."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.columns import Columns
from rich.panel import Panel
from rich.text import Text

from swe_cli.commands.shared import TRAIN, page, pruned_row, training_of
from swe_cli.contracts import Questions
from swe_cli.errors import RunError, UsageError
from swe_cli.evaluation.answers import answers_of
from swe_cli.experiments.model import TrainedModel, open_run
from swe_cli.models.gpt import GPT
from swe_cli.models.gpt import generate as continue_tokens
from swe_cli.records import Tensors


def generate(
    words: Sequence[str],
    config_dir: Path | None,
    *,
    prompt: str,
    image: Path | None,
    length: int,
    temperature: float,
    seed: int,
) -> None:
    """Continue ``prompt``, or answer it looking at ``image``.

    A pruned run is shown beside the model it was cut from.
    """
    this = page("generate", words, config_dir, runs=1)
    prompt = _in_utf8(prompt)
    if not prompt:
        raise UsageError("The prompt is empty.", 'Give a text to continue: --prompt "And"')
    run = this.chosen_run(("train", "prune"), TRAIN, "Asking", quiet=True)
    training, values = training_of(run), this.composed.values
    trained = open_run(training, this.root, values["device"], values["threads"])
    models: dict[str, Tensors] = {"dense": trained.weights("final")}
    if run.kind == "prune":
        row = pruned_row(run)
        cut = 100 * (row.mean("sparsity") or 0.0)
        title = f"{row.settings['criterion']}, {cut:.0f} % cut"
        models[title] = run.tensors("model.safetensors")
    asked = isinstance(trained.dataset, Questions)
    panels = {}
    for title, weights in models.items():
        trained.load(weights)
        if asked:
            text = _answer(trained, prompt, image)
        elif image is not None:
            reason = f"{trained.name} is a text model; it looks at no image."
            raise UsageError(reason, "Leave --image out.")
        else:
            generator = torch.Generator().manual_seed(seed)
            text = _continuation(trained, prompt, length, temperature, generator)
        panels[title] = Text(prompt, "bold") + text
    if asked:
        unknown = getattr(getattr(trained.dataset, "tokenizer", None), "unknown", None)
        new = [word for word in prompt.split() if unknown in trained.dataset.encode(word)]
        if new:
            said = f"Words that {training.name} never saw: {', '.join(new)}."
            this.console.print(said, markup=False)
    width = this.console.width // len(panels)
    boxes = [Panel(text, title=title, width=width) for title, text in panels.items()]
    this.console.print(Columns(boxes, padding=0, expand=False))


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
    ((answer, _),) = answers_of(trained, trained.dataset.about(image.expanduser(), question))
    return Text(f" {answer}") if answer else Text(" (no answer)", "dim")


def _continuation(
    trained: TrainedModel, prompt: str, length: int, temperature: float, generator: torch.Generator
) -> Text:
    if not isinstance(trained.model, GPT):
        raise RunError(f"{trained.name} is not a text model.", "Name another: swe runs")
    trained.model.eval()
    ids = trained.dataset.encode(prompt)
    grown = continue_tokens(
        trained.model, ids, length=length, temperature=temperature, generator=generator
    )
    return Text(trained.dataset.decode(grown[len(ids) :]))
