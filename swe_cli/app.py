"""The command line: every command, every exit code, and the only place that prints an error."""

import codecs
import io
import os
import sys
import traceback
import warnings
from importlib import import_module
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from swe_cli.errors import SweError, SweWarning

# torch, hydra and pandas take seconds to import; help must not wait for them, so each command
# imports its page when it runs.

app = typer.Typer(
    name="swe",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Prune neural networks by how their weights lived (Systematic Weight Evaluation), "
    "and compare criteria fairly.",
    epilog="Start: [bold]swe sweep experiment=demo[/bold], then [bold]swe report[/bold]. "
    "Exit codes: 0 done, 1 failed, 2 bad usage, 130/143 interrupted (the same command resumes).",
)

ASCII_SIGNS = "swe.ascii_signs"  # an error handler of encodings
SIGNS = {"▼": "v", "▲": "^", "−": "-", "–": "-", "—": "-", "…": "...", "×": "x", "σ": "sigma"}
SIGNS |= {"≥": ">=", "≤": "<=", "·": "*", "→": "->", "√": "sqrt", "Σ": "sum", "\u0304": "_"}


def _complete(incomplete: str) -> list[str]:
    """What a half-typed word can become: an override."""
    from swe_cli.config import ConfigRoot, completions

    return completions(incomplete, ConfigRoot())


def _complete_with_runs(incomplete: str) -> list[str]:
    """The same, or the name of a run."""
    runs = Path(os.environ.get("SWE_RESULTS_DIR") or "results") / "runs"
    names = sorted(path.parent.name for path in runs.glob("*/manifest.json"))
    return [name for name in names if name.startswith(incomplete)] + _complete(incomplete)


Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        show_default=False,
        help="Overrides, as in Hydra.",
        autocompletion=_complete,
    ),
]
RunWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RUN|KEY=VALUE",
        show_default=False,
        help="A run (name, unique prefix or path) and overrides.",
        autocompletion=_complete_with_runs,
    ),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option(
        "--config-dir",
        help="A folder of your own YAMLs, beside your own package; it adds to conf/.",
        show_default=False,
    ),
]
Name = Annotated[
    str | None,
    typer.Argument(metavar="NAME", show_default=False, help="One of them, to be shown whole."),
]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"swe {installed('swe-cli')}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results only, no progress.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for a run that another process holds.")]
Show = Annotated[
    bool, typer.Option("--cfg", help="Print the composed configuration, with every key, and stop.")
]


@app.callback(invoke_without_command=True)
def swe(version: Version = False) -> None:
    """What every command shares."""


@app.command(epilog="Example: swe train model=gpt_nano training.steps=500 tracking.every=10")
def train(
    words: Words = None,
    config_dir: ConfigDir = None,
    wait: Wait = False,
    show: Show = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train a model and track the weights of every step."""
    _run("train", debug, words or [], config_dir, wait=wait, show=show, quiet=quiet)


@app.command(
    epilog="Example: swe prune train-gpt_nano --ratio 0.5 criterion=magnitude. "
    "What to choose: swe criteria, swe allocations, swe patterns; every key: --cfg"
)
def prune(
    words: RunWords = None,
    ratio: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER",
            help="Fraction of the prunable weights (by pattern: of neurons, heads) to cut.",
        ),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER",
            help="The paper's multiplier of a standard deviation (allocation=sigma).",
        ),
    ] = None,
    fuse: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER",
            help="Then cut whole each slice (neuron) with more zeros than this (paper: 0.75).",
        ),
    ] = None,
    config_dir: ConfigDir = None,
    wait: Wait = False,
    show: Show = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Cut a trained run (the newest, unless named), recover, evaluate; keep the pruned model."""
    how = {"ratio": ratio, "rate": rate, "fuse": fuse, "wait": wait, "show": show, "quiet": quiet}
    _run("prune", debug, words or [], config_dir, **how)


@app.command(epilog="Example: swe evaluate train-gpt_nano")
def evaluate(
    words: RunWords = None,
    config_dir: ConfigDir = None,
    show: Show = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """The full deterministic pass over a trained or pruned run."""
    _run("evaluate", debug, words or [], config_dir, show=show, quiet=quiet)


@app.command(epilog="Example: swe sweep ratios=0.1..0.9 criteria=swe,magnitude,random seeds=0,1,2")
def sweep(
    words: Words = None,
    config_dir: ConfigDir = None,
    wait: Wait = False,
    show: Show = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train once per training, score once per criterion, cut many; then report."""
    _run("sweep", debug, words or [], config_dir, wait=wait, show=show, quiet=quiet)


@app.command(epilog="Example: swe report sweep-demo")
def report(
    words: RunWords = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write here instead of beside the run.", show_default=False
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="CRITERION",
            help="Also compare every line, paired, with this criterion's of the same settings.",
            show_default=False,
        ),
    ] = None,
    config_dir: ConfigDir = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Tables and figures of a sweep (the newest, unless named), or of all cuts of a training."""
    _run("report", debug, words or [], config_dir, folder=folder, against=against, quiet=quiet)


@app.command(epilog='Example: swe generate --prompt "And God said"')
def generate(
    words: RunWords = None,
    prompt: Annotated[str, typer.Option(help="The text to continue, or the question.")] = "\n",
    image: Annotated[
        Path | None, typer.Option(help="What the question is about.", show_default=False)
    ] = None,
    length: Annotated[int, typer.Option(min=1, help="Tokens to add.")] = 200,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest.")] = 0.8,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    config_dir: ConfigDir = None,
    debug: Debug = False,
) -> None:
    """Continue a text, or answer a question about an image: dense and pruned side by side."""
    how = {"prompt": prompt, "image": image, "length": length, "temperature": temperature}
    _run("generate", debug, words or [], config_dir, seed=seed, **how)


@app.command(epilog="Example: swe runs results_dir=/data/results")
def runs(words: Words = None, debug: Debug = False) -> None:
    """All runs, newest first: kind, status, size."""
    _run("runs", debug, words or [], None)


@app.command(epilog="Example: swe criteria stability")
def criteria(name: Name = None, config_dir: ConfigDir = None, debug: Debug = False) -> None:
    """Every criterion: its equation and source, what it needs; or one of them whole."""
    _run("catalogue", debug, [name] if name else [], config_dir, group="criterion")


@app.command(epilog="Example: swe allocations owl")
def allocations(name: Name = None, config_dir: ConfigDir = None, debug: Debug = False) -> None:
    """Every allocation: how many weights each tensor loses; or one of them whole."""
    _run("catalogue", debug, [name] if name else [], config_dir, group="allocation")


@app.command(epilog="Example: swe patterns 2of4")
def patterns(name: Name = None, config_dir: ConfigDir = None, debug: Debug = False) -> None:
    """Every pattern: which masks are legal, what really shrinks; or one of them whole."""
    _run("catalogue", debug, [name] if name else [], config_dir, group="pattern")


@app.command(epilog="Example: swe doctor")
def doctor(words: Words = None, debug: Debug = False) -> None:
    """Versions, device, threads, where data and results live, what is optional and missing."""
    _run("doctor", debug, words or [], None)


def _run(
    command: str, debug: bool, words: list[str], config_dir: Path | None, **options: Any
) -> None:
    """Run the page of a command, and end with its exit code."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _say_warning
            warnings.simplefilter("default", SweWarning)  # each once
            page = import_module(f"swe_cli.commands.{command}")
            getattr(page, command)(words, config_dir, **options)
    except SweError as error:
        if debug:
            traceback.print_exc()
        _fail(error)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. What was finished is safe; the same command resumes.\n")
        raise typer.Exit(130) from None
    except BrokenPipeError:  # the reader of a pipe left: swe report | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except OSError as error:  # a place nobody expected to be refused
        if debug:
            traceback.print_exc()
        where = f"{error.filename}: " if error.filename else ""
        _fail(SweError(f"{where}{error.strerror or error}.", "Add --debug to see where."))
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        if debug:
            raise
        _fail(_unforeseen(error))


def _say_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """A sentence where the warning is ours; what a library has to say only developers want."""
    if issubclass(category, SweWarning):
        from rich.console import Console

        Console(stderr=True, highlight=False, soft_wrap=True).print(str(message), style="yellow")


def _unforeseen(error: Exception) -> SweError:
    """One sentence for what nobody foresaw: too little memory, or a defect of this program."""
    text = " ".join(str(error).split())
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if out_of_memory or "allocate memory" in text:
        return SweError(
            "There is not enough memory for this model and batch.",
            "Lower model.width, model.context, training.batch_size or calibration.samples.",
        )
    return SweError(
        f"{type(error).__name__}: {text[:300]}",
        "This is a defect of swe. Add --debug to see where.",
    )


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """What stands for signs that an output's encoding does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(SIGNS.get(sign, "?") for sign in lost), error.end


codecs.register_error(ASCII_SIGNS, _in_ascii)


def _fail(error: SweError) -> NoReturn:
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    style = "yellow" if error.exit_code > 128 else "red"
    console.print(error.message, style=style, markup=False)
    if error.hint:
        console.print(error.hint, markup=False)
    raise typer.Exit(error.exit_code)


def main() -> None:
    """Entry point of the ``swe`` console script."""
    # OpenMP threads spin while they wait. On a machine that others use too, endless spinning made
    # a training step several times slower; a very short spin does so to small models on an idle
    # one. Measured in docs/LOG.md.
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # signs that a terminal lacks have others
            stream.reconfigure(errors=ASCII_SIGNS)
    app()
