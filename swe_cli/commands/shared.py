"""What the pages of several commands share: reading words, finding runs."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console

from swe_cli.commands.progress import Watcher
from swe_cli.config import Composed, ConfigRoot, Tokens, compose, read_tokens
from swe_cli.errors import RunError, UsageError
from swe_cli.experiments.plan import compose_point
from swe_cli.experiments.training import results_root
from swe_cli.records import Row
from swe_cli.store import Run, find_run, list_runs

WEIGHTS = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")
TRAIN = "Train one: swe train model=gpt_nano"


class _Console(Console):
    """Goes on, unheard, when the reader of a pipe leaves: swe sweep | head."""

    def on_broken_pipe(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def output() -> Console:
    """Where results go. A pipe has no width of its own: 80 columns."""
    return _Console(highlight=False, width=None if sys.stdout.isatty() else 80)


@dataclass(frozen=True)
class Page:
    """A command's words, read and composed."""

    root: ConfigRoot
    tokens: Tokens
    composed: Composed
    console: Console

    @property
    def results(self) -> Path:
        return results_root(self.composed.values["results_dir"])

    def chosen_run(
        self, kinds: tuple[str, ...], otherwise: str, doing: str, *, quiet: bool = False
    ) -> Run:
        """The run a user named, else the newest finished one of ``kinds``; which, is said.

        ``doing``: what is done to it, in a word. ``otherwise``: what to type where there is none.
        """
        watcher = Watcher(quiet)
        if self.tokens.runs:
            run = _named_run(self.tokens.runs[0], self.results, kinds)
            watcher.say(f"{doing} {run.name}")
            return run
        runs = list_runs(self.results, kinds)
        for run in (run for run in runs if run.finished):
            passed = f" that is finished: {runs[0].name} is {runs[0].status}"
            newest = run is runs[0]
            watcher.say(
                f"{doing} {run.name} (the newest{'' if newest else passed})", always=not newest
            )
            return run
        where = self.results / "runs"
        raise RunError(f"No finished {' or '.join(kinds)} run in {where}.", otherwise)

    def print(self, text: str) -> None:
        """A line of words in which brackets are brackets; it may be wider than the terminal."""
        self.console.print(text, markup=False, soft_wrap=True)

    def print_config(self) -> None:
        """Every key of the configuration with its value, as YAML one could save."""
        tree = {group: chosen.describe() for group, chosen in self.composed.components.items()}
        names = [f"{group}={options.pop('name')}" for group, options in tree.items()]
        self.print(f"# {' '.join(names)}")
        if self.composed.values.get("axes"):
            self.print("# This is the first cell; every combination of the axes is one.")
        text = yaml.safe_dump({**tree, **self.composed.values}, sort_keys=False)
        self.print(text.rstrip())


def page(
    command: str, words: Sequence[str], config_dir: Path | None = None, *, runs: int = 0
) -> Page:
    """The words of a command, composed: at most ``runs`` run names, axes for a sweep only."""
    root, tokens = config_root(config_dir), read_tokens(words)
    for key, values in tokens.axes.items() if command != "sweep" else ():
        if len(values) == 1:
            raise UsageError(f"An axis of {key} belongs to swe sweep.", f"Write {values[0]}")
        swept = f"Type: swe sweep {shlex.join(words)}"
        raise UsageError(
            f"{key} is given several values; axes belong to swe sweep.",
            swept if command == "train" else f"Give {key} one value.",
        )
    if len(tokens.runs) > runs:
        left = f"takes {'one' if runs else 'no'} run; {tokens.runs[runs]!r} is left over"
        raise UsageError(f"swe {command} {left}.", "Overrides: key=value.")
    if command == "sweep":
        return Page(root, tokens, compose_point(tokens, root), output())
    return Page(root, tokens, compose(command, tokens.overrides, root), output())


def config_root(config_dir: Path | None) -> ConfigRoot:
    """Where YAMLs are found, with the user's own folder."""
    return ConfigRoot(config_dir.expanduser().resolve() if config_dir else None)


def typed(command: str, words: Sequence[str], config_dir: Path | None = None) -> str:
    """The command as one would type it again."""
    options = ["--config-dir", str(config_dir)] if config_dir else []
    return f"Type the same again to resume: {shlex.join(['swe', command, *words, *options])}"


def pruned_row(run: Run) -> Row:
    """The row of a finished pruned run."""
    if not run.finished:
        raise RunError(f"{run.name} is {run.status}.", "Type the swe prune that makes it again.")
    return Row.from_json(run.manifest["row"])


def training_of(run: Run) -> Run:
    """A training as it is; of a pruned run, what it was cut from. RunError where that is gone."""
    if run.kind != "prune":
        return run
    training = Run(run.path.parent / run.config["training"])
    if not training.exists:
        raise RunError(
            f"{run.name} was cut from {training.name}, which is not in {run.path.parent}.",
            "Put that folder back, or type the swe train that makes it again.",
        )
    return training


def _named_run(token: str, results: Path, kinds: tuple[str, ...]) -> Run:
    if token.endswith(WEIGHTS):
        reason = f"{token} is a file of weights; what can be cut is a training of swe train."
        raise RunError(reason, f"List them: swe runs. {TRAIN}")
    try:
        run = find_run(token, results, kinds)
    except RunError as refused:
        try:
            run = find_run(token, results)  # of another kind, then
        except RunError:
            raise refused from None
        if run.kind in kinds:
            raise
    if run.kind not in kinds:
        reason = f"{run.name} is no {' or '.join(kinds)} run, which is what is asked for."
        raise RunError(reason, "See: swe runs")
    return run
