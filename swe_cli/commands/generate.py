"""swe generate: a prompt continued, or a question about an image answered; dense and pruned."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.columns import Columns
from rich.panel import Panel
from rich.text import Text

from swe_cli.commands.shared import (
    chosen_run,
    config_root,
    output,
    pruned_row,
    read_words,
    training_of,
)
from swe_cli.compose import compose
from swe_cli.contracts import Dataset, Questions, Tensors
from swe_cli.errors import RunError, UsageError
from swe_cli.evaluation.answers import answers_of
from swe_cli.models.gpt import GPT
from swe_cli.models.gpt import generate as continue_tokens
from swe_cli.sweeps.build import results_root
from swe_cli.sweeps.subject import load_subject


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
    root, tokens = config_root(config_dir), read_words("generate", words, runs=1)
    if not prompt:
        raise UsageError("The prompt is empty.", 'Give a text to continue: --prompt "And"')
    composed = compose("generate", tokens.overrides, root)
    results = results_root(composed.values["results_dir"])
    run = chosen_run(tokens, results, ("train", "prune"), "Train one: swe train model=gpt_nano")
    training = training_of(run) if run.kind == "prune" else run
    subject = load_subject(training, root, composed.values["device"], composed.values["threads"])
    models: dict[str, Tensors] = {"dense": subject.weights("final")}
    if run.kind == "prune":
        row = pruned_row(run)
        title = f"{row.criterion}, {100 * (row.sparsity or 0.0):.0f} % cut"
        models[title] = run.tensors("model.safetensors")
    if isinstance(subject.dataset, Questions):
        if image is None:
            raise UsageError(
                f"{run.name} answers questions about images.",
                'Name one: --image FILE --prompt "what is the sum?"',
            )
        if not prompt.strip():
            raise UsageError("There is no question.", 'Ask one: --prompt "what is the sum?"')
        asked = subject.dataset.about(image.expanduser(), prompt)
    elif image is not None:
        raise UsageError(f"{run.name} is a text model; it looks at no image.", "Leave --image out.")
    panels = []
    for title, weights in models.items():
        model = subject.load(weights)
        if isinstance(subject.dataset, Questions):
            ((answer, _),) = answers_of(model, subject.dataset, asked, subject.machine)
            said = Text(answer) if answer else Text("(no answer)", "dim")
            panels.append((title, Text(f"{prompt} ", "bold") + said))
            continue
        if not isinstance(model, GPT):
            raise RunError(f"{run.name} is not a text model.", "Name another: swe runs")
        model.eval()
        ids = subject.dataset.encode(prompt)
        generator = torch.Generator().manual_seed(seed)
        grown = continue_tokens(
            model, ids, length=length, temperature=temperature, generator=generator
        )
        panels.append(
            (title, Text(prompt, "bold") + Text(subject.dataset.decode(grown[len(ids) :])))
        )
    console = output()
    unknown = _unknown(subject.dataset, prompt)
    if unknown:
        console.print(f"Words that {training.name} never saw: {', '.join(unknown)}.", markup=False)
    width = console.width // len(panels)
    boxes = [Panel(text, title=title, width=width) for title, text in panels]
    console.print(Columns(boxes, padding=0, expand=False))


def _unknown(dataset: Dataset, prompt: str) -> list[str]:
    """Words of a question that stand for nothing in the vocabulary."""
    if not isinstance(dataset, Questions):
        return []
    unknown = getattr(getattr(dataset, "tokenizer", None), "unknown", None)
    return [word for word in prompt.split() if unknown in dataset.encode(word)]
