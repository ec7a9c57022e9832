"""A command as it was typed, which every page is given: its words read, its run found."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml
from rich.console import Console

from swe_cli.commands.progress import Watcher
from swe_cli.config import Composed, ConfigRoot, Tokens, compose, read_tokens
from swe_cli.errors import RunError, UsageError
from swe_cli.experiments.sweep import compose_point, preview
from swe_cli.experiments.training import results_root
from swe_cli.records import Row
from swe_cli.store import Run, find_run, list_runs

TAKE_A_RUN = ("prune", "evaluate", "report", "generate")
AMOUNTS = ("ratio", "rate", "fuse")  # of swe prune, which has options of these names, too
WEIGHTS = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")
TRAIN = "Train one: swe train model=gpt_nano"


class _Console(Console):
    """Goes on, unheard, when the reader of a pipe leaves: swe sweep | head."""

    def on_broken_pipe(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@dataclass(frozen=True)
class Page:
    """A command with the options that several have; read and composed when that is looked at.

    Raises UsageError then, for words that it does not take.
    """

    command: str
    words: Sequence[str]
    config_dir: Path | None = None
    quiet: bool = False
    wait: bool = False

    @cached_property
    def root(self) -> ConfigRoot:
        """Where YAMLs are found, with the user's own folder."""
        return ConfigRoot(self.config_dir.expanduser().resolve() if self.config_dir else None)

    @cached_property
    def tokens(self) -> Tokens:
        return _read(self.command, self.words)

    @cached_property
    def composed(self) -> Composed:
        if self.command == "sweep":
            return compose_point(self.tokens, self.root)
        return compose(self.command, self.tokens.overrides, self.root)

    @property
    def results(self) -> Path:
        return results_root(self.composed.values["results_dir"])

    @property
    def resume(self) -> str:
        """The command as one would type it again."""
        options = ["--config-dir", str(self.config_dir)] if self.config_dir else []
        again = shlex.join(["swe", self.command, *self.words, *options])
        return f"Type the same again to resume: {again}"

    @cached_property
    def console(self) -> Console:
        """Where results go. A pipe has no width of its own: 80 columns."""
        return _Console(highlight=False, width=None if sys.stdout.isatty() else 80)

    @cached_property
    def watcher(self) -> Watcher:
        return Watcher(self.quiet)

    def print(self, text: str) -> None:
        """A line of words in which brackets are brackets; it may be wider than the terminal."""
        self.console.print(text, markup=False, soft_wrap=True)

    def print_config(self) -> None:
        """Every key of the configuration with its value, as YAML one could save."""
        swept = self.command == "sweep"
        composed = preview(self.tokens, self.root) if swept else self.composed
        tree = {group: chosen.describe() for group, chosen in composed.components.items()}
        names = [f"{group}={options.pop('name')}" for group, options in tree.items()]
        self.print(f"# {' '.join(names)}")
        if composed.values.get("axes"):
            self.print("# This is the first cell; every combination of the axes is one.")
        self.print(yaml.safe_dump({**tree, **composed.values}, sort_keys=False).rstrip())

    def chosen_run(
        self, kinds: tuple[str, ...], doing: str, *, otherwise: str = TRAIN, quiet: bool = True
    ) -> Run:
        """The run a user named, else the newest finished one of ``kinds``; which, is said.

        ``doing``: what is done to it, in a word. ``otherwise``: what to type where there is none.
        ``quiet``: say it only where an unfinished one is newer.
        """
        if self.tokens.runs:
            run, why = _named_run(self.tokens.runs[0], self.results, kinds), ""
        else:
            runs = list_runs(self.results, kinds)
            finished = next((run for run in runs if run.finished), None)
            if finished is None:
                where = self.results / "runs"
                raise RunError(f"No finished {' or '.join(kinds)} run in {where}.", otherwise)
            run, why = finished, " (the newest)"
            if run is not runs[0]:
                quiet = False
                why = f" (the newest that is finished: {runs[0].name} is {runs[0].status})"
        Watcher(quiet).say(f"{doing} {run.name}{why}")
        return run


def _read(command: str, words: Sequence[str]) -> Tokens:
    """The words told apart. Raises UsageError for what the command does not take."""
    keys = [word.partition("=")[0] for word in words]
    if command == "prune":
        for key in AMOUNTS:
            if keys.count(key) > 1:
                raise UsageError(f"The {key} is given twice.", f"Keep one: --{key} or {key}=…")
        if "rate" in keys and "allocation" not in keys:
            words = [*words, "allocation=sigma"]  # the only one that knows what a rate is
    tokens = read_tokens(words)
    for key, values in tokens.axes.items() if command != "sweep" else ():
        if len(values) == 1:
            raise UsageError(f"An axis of {key} belongs to swe sweep.", f"Write {values[0]}")
        swept = f"Type: swe sweep {shlex.join(words)}"
        raise UsageError(
            f"{key} is given several values; axes belong to swe sweep.",
            swept if command == "train" else f"Give {key} one value.",
        )
    allowed = 1 if command in TAKE_A_RUN else 0
    if len(tokens.runs) > allowed:
        left = f"takes {'one' if allowed else 'no'} run; {tokens.runs[allowed]!r} is left over"
        raise UsageError(f"swe {command} {left}.", "Overrides: key=value.")
    return tokens


def _named_run(token: str, results: Path, kinds: tuple[str, ...]) -> Run:
    if token.endswith(WEIGHTS):
        reason = f"{token} is a file of weights; what can be cut is a training of swe train."
        raise RunError(reason, f"List them: swe runs. {TRAIN}")
    return find_run(token, results, kinds)


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
