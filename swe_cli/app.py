"""The command line: every command, every exit code, and the only place that prints an error."""

import codecs
import io
import os
import signal
import sys
import traceback
import warnings
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal, NoReturn

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

INTERRUPTED = "Interrupted. What was finished is safe; the same command resumes.\n"
ASCII_SIGNS = "swe.ascii_signs"  # an error handler of encodings
# Every sign beyond ASCII that is printed, and what stands for it where it cannot be.
SIGNS = {"▼": "v", "▲": "^", "−": "-", "–": "-", "—": "-", "─": "-", "…": "...", "×": "x"}
SIGNS |= {"≥": ">=", "≤": "<=", "±": "+-", "·": "*", "→": "->", "√": "sqrt", "σ": "sigma"}
SIGNS |= {"’": "'", "“": '"', "”": '"', "�": "?"}
SIGNS |= {"Σ": "sum", "\u0304": "_", "²": "^2", "³": "^3", "₂": "_2", "ᵀ": "^T", "‖": "|"}
SIGNS |= {"’": "'", "“": '"', "”": '"', "�": "?"}


# What commands share


def _complete(context: typer.Context, incomplete: str) -> list[str]:
    """What a half-typed word can become: an override."""
    from swe_cli.config import ConfigRoot, completions

    root = ConfigRoot(context.params.get("config_dir"))
    words = [word for word in context.params.get("words") or () if word != "="]
    # For bash key=value is three words, of which it replaces the last.
    values = completions(f"{words[-1]}={incomplete}", root) if words else []
    return [word.partition("=")[2] for word in values] or completions(incomplete, root)


def _complete_with_runs(context: typer.Context, incomplete: str) -> list[str]:
    """The same, or the name of a run."""
    runs = Path(os.environ.get("SWE_RESULTS_DIR") or "results") / "runs"
    names = sorted(path.parent.name for path in runs.glob("*/manifest.json"))
    return [name for name in names if name.startswith(incomplete)] + _complete(context, incomplete)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"swe {version('swe-cli')}")
        raise typer.Exit


# Each has its default here, so that no signature repeats it.
_words = partial(typer.Argument, show_default=False, default_factory=list)
_flag = partial(typer.Option, show_default=False, default_factory=bool)
_option = partial(typer.Option, show_default=False, default_factory=lambda: None)

RUN = "A run (name, unique prefix or path) and overrides."
OWN = "A folder of your own YAMLs, beside your own package; it adds to conf/."
TASKS = "Instead of that: a task of the lm-evaluation-harness; once for each of them."
COMPOSED = "Print the composed configuration, with every key, and stop."

Words = Annotated[
    list[str], _words(metavar="KEY=VALUE", help="Overrides, as in Hydra.", autocompletion=_complete)
]
RunWords = Annotated[
    list[str], _words(metavar="RUN|KEY=VALUE", help=RUN, autocompletion=_complete_with_runs)
]
Task = partial(_option, exists=True, dir_okay=False)
Tasks = Annotated[list[Path] | None, Task(metavar="FILE.yaml", help=TASKS)]
Name = Annotated[
    str | None,
    typer.Argument(metavar="NAME", show_default=False, help="One of them, to be shown whole."),
]
ConfigDir = Annotated[Path | None, _option("--config-dir", help=OWN)]
Debug = Annotated[bool, _flag("--debug", help="Show the traceback of an error.")]
Quiet = Annotated[bool, _flag("--quiet", "-q", help="Print results only, no progress.")]
Wait = Annotated[bool, _flag("--wait", help="Wait for a run that another process holds.")]
Show = Annotated[bool, _flag("--cfg", help=COMPOSED)]
Json = Annotated[bool, _flag("--json", help="Print the result as JSON, and nothing else.")]
Version = Annotated[
    bool, _flag("--version", help="Show the version.", callback=_print_version, is_eager=True)
]

# The commands


@app.callback(invoke_without_command=True)
def swe(version: Version) -> None:
    """What every command shares."""


@app.command(epilog="Example: swe train model=gpt_nano training.steps=500 tracking.every=10")
def train(
    words: Words,
    config_dir: ConfigDir,
    wait: Wait,
    show: Show,
    json: Json,
    quiet: Quiet,
    debug: Debug,
) -> None:
    """Train a model and track the weights of every step."""
    _run("model.train", debug, words, config_dir, quiet, wait, show=show, json=json)


RATIO = "Fraction of the prunable weights (by pattern: of neurons, heads, blocks) to cut."
RATE = "The paper's multiplier of a standard deviation (allocation=sigma)."
FUSE = "Then cut whole each slice (neuron) with more zeros than this (paper: 0.75)."


@app.command(
    epilog="Example: swe prune train-gpt_nano --ratio 0.5 criterion=magnitude. "
    "What to choose: swe criteria, swe allocations, swe patterns; every key: --cfg"
)
def prune(
    words: RunWords,
    ratio: Annotated[str | None, _option(metavar="NUMBER", help=RATIO)],
    rate: Annotated[str | None, _option(metavar="NUMBER", help=RATE)],
    fuse: Annotated[str | None, _option(metavar="NUMBER", help=FUSE)],
    config_dir: ConfigDir,
    wait: Wait,
    show: Show,
    json: Json,
    quiet: Quiet,
    debug: Debug,
) -> None:
    """Cut a trained run (the newest, unless named), recover, evaluate; keep the pruned model."""
    amounts = {"ratio": ratio, "rate": rate, "fuse": fuse}
    words += [f"{key}={value}" for key, value in amounts.items() if value is not None]
    _run("model.prune", debug, words, config_dir, quiet, wait, show=show, json=json)


RUNTIME = "csr: layers that are mostly zeros without them, where that is faster."


@app.command(epilog="Example: swe evaluate prune-gpt_nano --runtime csr costs=measured")
def evaluate(
    words: RunWords,
    tasks: Tasks,
    *,
    runtime: Annotated[Literal["dense", "csr"], typer.Option(help=RUNTIME)] = "dense",
    config_dir: ConfigDir,
    show: Show,
    json: Json,
    quiet: Quiet,
    debug: Debug,
) -> None:
    """The full deterministic pass over a trained or pruned run."""
    how: dict[str, Any] = {"tasks": tasks or (), "runtime": runtime}
    _run("model.evaluate", debug, words, config_dir, quiet, show=show, json=json, **how)


REFRESH = "Measure rows anew that an older version measured less of."


@app.command(epilog="Example: swe sweep ratios=0.1..0.9 criteria=swe,magnitude,random seeds=0,1,2")
def sweep(
    words: Words,
    refresh: Annotated[bool, _flag("--refresh", help=REFRESH)],
    config_dir: ConfigDir,
    wait: Wait,
    show: Show,
    json: Json,
    quiet: Quiet,
    debug: Debug,
) -> None:
    """Train once per training, score once per criterion, cut many; then report."""
    _run(
        "report.sweep", debug, words, config_dir, quiet, wait, show=show, json=json, refresh=refresh
    )


DTYPE = "Of its weights; by default that of the folder the model came from."
Minimised = Literal["bytes", "latency", "flops", "energy"]
LOSS = "Nats per token that a cut may lose, surely, against the best control."
MINIMISE = "What is wanted little: latency and energy are timed by costs=measured."


@app.command(epilog="Example: swe recommend sweep-demo --max-loss-increase 0.02 --minimise bytes")
def recommend(
    words: RunWords,
    *,
    most: Annotated[float, typer.Option("--max-loss-increase", help=LOSS)] = 0.01,
    minimise: Annotated[Minimised, typer.Option(help=MINIMISE)] = "bytes",
    config_dir: ConfigDir,
    json: Json,
    debug: Debug,
) -> None:
    """The cheapest cut that is surely good enough, the runner-up, and how to make it; or none."""
    how: dict[str, Any] = {"most": most, "minimise": minimise}
    _run("recommend.recommend", debug, words, config_dir, json=json, **how)


COMPRESS = "Weights without their zeros, in one file; of any run."
OUTPUT = "Write here instead of beside the run."
ROWS = "Show every line, cut by cut, not the best alone."
TOLERANCE = "What a cut may cost and still hold, in nats per token."
Format = Literal["csv", "md", "json", "latex", "html"]
FORMAT = "Print the means so, instead: all columns (csv, json), or lines by cuts."
HTML = "Also write report.html: one page that a browser opens, offline."
AGAINST = "Also compare every line, paired, with this criterion's of the same settings."


@app.command(epilog="Example: swe report sweep-demo")
def report(
    words: RunWords,
    folder: Annotated[Path | None, _option("--output", "-o", help=OUTPUT)],
    against: Annotated[str | None, _option(metavar="CRITERION", help=AGAINST)],
    rows: Annotated[bool, _flag("--rows", help=ROWS)],
    form: Annotated[Format | None, _option("--format", help=FORMAT)],
    as_html: Annotated[bool, _flag("--html", help=HTML)],
    config_dir: ConfigDir,
    json: Json,
    quiet: Quiet,
    debug: Debug,
    tolerance: Annotated[float, typer.Option(min=0.0, metavar="NATS", help=TOLERANCE)] = 0.01,
) -> None:
    """Tables and figures of a sweep (the newest, unless named), or of all cuts of a training."""
    options: dict[str, Any] = {"against": against, "rows": rows, "tolerance": tolerance}
    options |= {"folder": folder, "form": form, "as_html": as_html}
    _run("report.report", debug, words, config_dir, quiet, json=json, **options)


@app.command(epilog="Example: swe compare train-gpt_nano-04fb82ab prune-gpt_nano-swe-1a2b3c4d")
def compare(words: RunWords, json: Json, debug: Debug) -> None:
    """Runs side by side: the settings in which they differ, their losses, paired differences."""
    _run("compare.compare", debug, words, json=json)


@app.command(epilog="Example: swe export prune-smollm2-wanda-1a2b3c4d pruned --dtype bfloat16")
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help=RUN)],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    words: Words,
    dtype: Annotated[Literal["float32", "bfloat16", "float16"] | None, _option(help=DTYPE)],
    compress: Annotated[bool, _flag("--compress", help=COMPRESS)],
    config_dir: ConfigDir,
    debug: Debug,
) -> None:
    """A run of model=huggingface as a folder that transformers opens, with a model card."""
    how: dict[str, Any] = {"folder": folder, "dtype": dtype, "compress": compress}
    _run("model.export", debug, [run, *words], config_dir, **how)


@app.command(epilog='Example: swe generate --prompt "And God said"')
def generate(
    words: RunWords,
    *,
    prompt: Annotated[str, typer.Option(help="The text to continue, or the question.")] = "\n",
    image: Annotated[Path | None, _option(help="What the question is about.")],
    length: Annotated[int, typer.Option(min=1, help="Tokens to add.")] = 200,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest.")] = 0.8,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    config_dir: ConfigDir,
    debug: Debug,
) -> None:
    """Continue a text, or answer a question about an image: dense and pruned side by side."""
    how: dict[str, Any] = {"length": length, "temperature": temperature, "seed": seed}
    _run("model.generate", debug, words, config_dir, prompt=prompt, image=image, **how)


@app.command(epilog="Example: swe runs results_dir=/data/results")
def runs(words: Words, json: Json, debug: Debug) -> None:
    """All runs, newest first: kind, status, size."""
    _run("inventory.runs", debug, words, json=json)


@app.command(epilog="Example: swe criteria stability")
def criteria(name: Name = None, *, config_dir: ConfigDir, debug: Debug) -> None:
    """Every criterion: its equation and source, what it needs; or one of them whole."""
    _run("catalogue.criteria", debug, [name] if name else [], config_dir)


@app.command(epilog="Example: swe allocations owl")
def allocations(name: Name = None, *, config_dir: ConfigDir, debug: Debug) -> None:
    """Every allocation: how many weights each tensor loses; or one of them whole."""
    _run("catalogue.allocations", debug, [name] if name else [], config_dir)


@app.command(epilog="Example: swe patterns 2of4")
def patterns(name: Name = None, *, config_dir: ConfigDir, debug: Debug) -> None:
    """Every pattern: which masks are legal, what really shrinks; or one of them whole."""
    _run("catalogue.patterns", debug, [name] if name else [], config_dir)


@app.command(epilog="Example: swe columns jaccard_magnitude")
def columns(name: Name = None, *, json: Json, debug: Debug) -> None:
    """What each column of a table means, with its unit; or one of them."""
    _run("catalogue.columns", debug, [name] if name else [], json=json)


@app.command(epilog="Example: swe doctor")
def doctor(words: Words, json: Json, debug: Debug) -> None:
    """Versions, device, threads, where data and results live, what is optional and missing."""
    _run("inventory.doctor", debug, words, json=json)


# Running one, and what can go wrong


def _run(page: str, debug: bool, *typed: Any, show: bool = False, **options: Any) -> None:
    """Run a page, ``module.command``, or show its configuration; end with its exit code.

    ``typed``: words, folder of YAMLs, quiet, wait, as far as the command has them.
    """
    form = options.pop("form", None)
    form = "json" if options.pop("json", False) else form
    module, command = page.split(".")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            warnings.simplefilter("default", SweWarning)  # each once
            from swe_cli.commands.shared import Page

            run = getattr(import_module(f"swe_cli.commands.{module}"), command)
            this = Page(command, *typed, form=None if show else form)
            if show:
                this.print_config()
            else:
                run(this, **options)
    except KeyboardInterrupt:
        sys.stderr.write(INTERRUPTED)
        raise typer.Exit(130) from None
    except BrokenPipeError:  # the reader of a pipe left: swe report | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except Exception as error:
        if debug:
            traceback.print_exc()
        explained = _explained(error)
        _print_error(explained.message, "yellow" if explained.exit_code > 128 else "red")
        if explained.hint:
            _print_error(explained.hint)
        raise typer.Exit(explained.exit_code) from None


def _print_warning(
    message: Warning | str, category: type[Warning], *where: Any, **more: Any
) -> None:
    """A sentence where the warning is ours; what a library has to say only developers want."""
    if issubclass(category, SweWarning):
        _print_error(str(message), "yellow")


def _explained(error: Exception) -> SweError:
    """One sentence, also for what nobody foresaw: a place that refuses, no memory, our defects."""
    if isinstance(error, SweError):
        return error
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return SweError(f"{where}{error.strerror or error}.", "Add --debug to see where.")
    text = " ".join(str(error).split())
    out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if out_of_memory or "allocate memory" in text:
        hint = "Lower model.width, model.context, training.batch_size or calibration.samples."
        return SweError("There is not enough memory for this model and batch.", hint)
    defect = "This is a defect of swe. Add --debug to see where."
    return SweError(f"{type(error).__name__}: {text[:300]}", defect)


def _print_error(text: str, style: str = "") -> None:
    from rich.console import Console

    Console(stderr=True, highlight=False, soft_wrap=True).print(text, style=style, markup=False)


# The process


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """What stands for signs that an output's encoding does not have."""
    assert isinstance(error, UnicodeEncodeError)  # it is given to outputs only
    lost = error.object[error.start : error.end]
    return "".join(SIGNS.get(sign, "?") for sign in lost), error.end


codecs.register_error(ASCII_SIGNS, _in_ascii)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Ctrl-C outside of long work, also while modules are imported and words are read."""
    os.write(2, INTERRUPTED.encode())
    raise SystemExit(128 + number)


def main() -> None:
    """Entry point of the ``swe`` console script."""
    signal.signal(signal.SIGINT, _interrupt)
    # OpenMP threads spin while they wait. On a machine that others use too, endless spinning made
    # a training step several times slower; a very short spin does so to small models on an idle
    # one. Measured in docs/LOG.md.
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # signs that a terminal lacks have others
            stream.reconfigure(errors=ASCII_SIGNS)
    app()
