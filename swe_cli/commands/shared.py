"""What the pages of several commands share: reading words, finding runs."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console

from swe_cli.commands.progress import Watcher
from swe_cli.config import Composed, ConfigRoot, Tokens, compose, read_tokens
from swe_cli.errors import RunError, UsageError
from swe_cli.experiments.training import results_root
from swe_cli.records import Row
from swe_cli.store import Run, find_run, list_runs


def output() -> Console:
    """Where results go. A pipe has no width of its own: 80 columns."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=80)


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
        passed: list[Run] = []
        for run in list_runs(self.results, kinds):
            if run.finished:
                why = "the newest"
                if passed:
                    why += f" that is finished: {passed[0].name} is {passed[0].status}"
                watcher.say(f"{doing} {run.name} ({why})", always=bool(passed))
                return run
            passed.append(run)
        raise RunError(
            f"No finished {' or '.join(kinds)} run in {self.results / 'runs'}.", otherwise
        )

    def print_config(self) -> None:
        """Every key of the configuration with its value, as YAML one could save."""
        tree = {group: chosen.describe() for group, chosen in self.composed.components.items()}
        names = [f"{group}={options.pop('name')}" for group, options in tree.items()]
        self.console.print(f"# {' '.join(names)}", markup=False, soft_wrap=True)
        if self.composed.values.get("axes"):
            self.console.print("# This is the first cell; every combination of the axes is one.")
        text = yaml.safe_dump({**tree, **self.composed.values}, sort_keys=False)
        self.console.print(text.rstrip(), markup=False, soft_wrap=True)


def page(
    command: str, words: Sequence[str], config_dir: Path | None = None, *, runs: int = 0
) -> Page:
    """The words of a command that takes no axes and at most ``runs`` run names, composed."""
    root, tokens = config_root(config_dir), read_words(command, words, runs=runs)
    return Page(root, tokens, compose(command, tokens.overrides, root), output())


def config_root(config_dir: Path | None) -> ConfigRoot:
    """Where YAMLs are found, with the user's own folder."""
    return ConfigRoot(config_dir.expanduser().resolve() if config_dir else None)


def read_words(command: str, words: Sequence[str], *, runs: int) -> Tokens:
    """The words of a command that takes no axes and at most ``runs`` run names."""
    tokens = read_tokens(words)
    if tokens.axes:
        key, values = next(iter(tokens.axes.items()))
        if len(values) == 1:
            raise UsageError(f"An axis of {key} belongs to swe sweep.", f"Write {values[0]}")
        raise UsageError(
            f"{key} is given several values; axes belong to swe sweep.",
            f"Type: swe sweep {shlex.join(words)}"
            if command == "train"
            else f"Give {key} one value.",
        )
    if len(tokens.runs) > runs:
        extra = tokens.runs[runs]
        what = "takes no run" if runs == 0 else "takes one run"
        raise UsageError(f"swe {command} {what}; {extra!r} is left over.", "Overrides: key=value.")
    return tokens


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
    """The training that a pruned run was cut from. Raises RunError where it is gone."""
    training = Run(run.path.parent / run.config["training"])
    if not training.exists:
        raise RunError(
            f"{run.name} was cut from {training.name}, which is not in {run.path.parent}.",
            "Put that folder back, or type the swe train that makes it again.",
        )
    return training


def _named_run(token: str, results: Path, kinds: tuple[str, ...]) -> Run:
    if token.endswith((".pt", ".pth", ".bin", ".safetensors", ".ckpt")):
        raise RunError(
            f"{token} is a file of weights; what can be cut is a training of swe train.",
            "List them: swe runs. Train one: swe train model=gpt_nano",
        )
    try:
        run = find_run(token, results, kinds)
    except RunError:
        run = find_run(token, results)  # of another kind, then; else the better complaint
        if run.kind in kinds:
            raise
    if run.kind not in kinds:
        wanted = " or ".join(kinds)
        raise RunError(
            f"{run.name} is no {wanted} run, which is what is asked for.", "See: swe runs"
        )
    return run
