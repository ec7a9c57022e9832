"""The command line: every command, every exit code, and the only place that prints an error."""

import codecs
import io
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from functools import partial, wraps
from importlib import import_module
from importlib.metadata import version
from inspect import Parameter, Signature, signature
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal, NoReturn

import typer

from swe_cli.errors import SweError, SweWarning, UsageError

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

HYDRA = "Overrides, as in Hydra."
RUN = "A run (name, unique prefix or path) and overrides."
OWN = "A folder of your own YAMLs, beside your own package; it adds to conf/."
TASKS = "Instead of that: a task of the lm-evaluation-harness; once for each of them."
ONE = "One of them, to be shown whole."
COMPOSED = "Print the composed configuration, with every key, and stop."

Words = Annotated[list[str], _words(metavar="KEY=VALUE", help=HYDRA, autocompletion=_complete)]
RunWords = Annotated[
    list[str], _words(metavar="RUN|KEY=VALUE", help=RUN, autocompletion=_complete_with_runs)
]
Task = partial(_option, exists=True, dir_okay=False)
Tasks = Annotated[list[Path] | None, Task(metavar="FILE.yaml", help=TASKS)]
Name = Annotated[str | None, typer.Argument(metavar="NAME", show_default=False, help=ONE)]
ConfigDir = Annotated[Path | None, _option("--config-dir", help=OWN)]
Debug = Annotated[bool, _flag("--debug", help="Show the traceback of an error.")]
Quiet = Annotated[bool, _flag("--quiet", "-q", help="Print results only, no progress.")]
Wait = Annotated[bool, _flag("--wait", help="Wait for a run that another process holds.")]
Show = Annotated[bool, _flag("--cfg", help=COMPOSED)]
Json = Annotated[bool, _flag("--json", help="Print the result as JSON, and nothing else.")]
Version = Annotated[
    bool, _flag("--version", help="Show the version.", callback=_print_version, is_eager=True)
]

SHARED = {"config_dir": ConfigDir, "wait": Wait, "show": Show, "json": Json, "quiet": Quiet}
SHARED["debug"] = Debug


def _page(page: str, shared: str = "") -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """What runs ``page``, ``module.command``: a command with the options of ``SHARED`` that are
    named, and ``debug``. The page is handed what was typed or what the function makes of it.
    """
    names = [*shared.split(), "debug"]

    def running(declared: Callable[..., Any]) -> Callable[..., None]:
        @wraps(declared)
        def command(**typed: Any) -> None:
            common = {name: typed.pop(name) for name in names}
            _run(page, common, **(declared(**typed) or typed))

        added = [Parameter(n, Parameter.KEYWORD_ONLY, annotation=SHARED[n]) for n in names]
        own = signature(declared).parameters.values()
        every = sorted([*added, *own], key=lambda parameter: parameter.kind)
        command.__signature__ = Signature(every)  # type: ignore[attr-defined]
        return command

    return running


# The commands, each with what is its own


@app.callback(invoke_without_command=True)
def swe(version: Version) -> None:
    """What every command shares."""


@app.command(epilog="Example: swe train model=gpt_nano training.steps=500 tracking.every=10")
@_page("model.train", "config_dir wait show json quiet")
def train(words: Words) -> None:
    """Train a model and track the weights of every step."""


RATIO = "Fraction of the prunable weights (by pattern: of neurons, heads, blocks) to cut."
RATE = "The paper's multiplier of a standard deviation (allocation=sigma)."
FUSE = "Then cut whole each slice (neuron) with more zeros than this (paper: 0.75)."


@app.command(
    epilog="Example: swe prune train-gpt_nano --ratio 0.5 criterion=magnitude. "
    "What to choose: swe criteria, swe allocations, swe patterns; every key: --cfg"
)
@_page("model.prune", "config_dir wait show json quiet")
def prune(
    words: RunWords,
    ratio: Annotated[str | None, _option(metavar="NUMBER", help=RATIO)],
    rate: Annotated[str | None, _option(metavar="NUMBER", help=RATE)],
    fuse: Annotated[str | None, _option(metavar="NUMBER", help=FUSE)],
) -> dict[str, Any]:
    """Cut a trained run (the newest, unless named), recover, evaluate; keep the pruned model."""
    amounts = {"ratio": ratio, "rate": rate, "fuse": fuse}
    given = [f"{key}={value}" for key, value in amounts.items() if value is not None]
    return {"words": words + given}


RUNTIME = "csr: layers that are mostly zeros without them, where that is faster."


@app.command(epilog="Example: swe evaluate prune-gpt_nano --runtime csr costs=measured")
@_page("model.evaluate", "config_dir show json quiet")
def evaluate(
    words: RunWords,
    tasks: Tasks,
    runtime: Annotated[Literal["dense", "csr"], typer.Option(help=RUNTIME)] = "dense",
) -> None:
    """The full deterministic pass over a trained or pruned run."""


PLAN = "Say what would run, what is there, and about how long it takes; run nothing."
REFRESH = "Measure rows anew that an older version measured less of."


@app.command(epilog="Example: swe sweep ratios=0.1..0.9 criteria=swe,magnitude,random seeds=0,1,2")
@_page("report.sweep", "config_dir wait show json quiet")
def sweep(
    words: Words,
    refresh: Annotated[bool, _flag("--refresh", help=REFRESH)],
    plan: Annotated[bool, _flag("--plan", help=PLAN)],
) -> None:
    """Train once per training, score once per criterion, cut many; then report."""


DTYPE = "Of its weights; by default that of the folder the model came from."
Minimised = Literal["bytes", "latency", "flops", "energy"]
LOSS = "Nats per token that a cut may lose, surely, against the best control."
MINIMISE = "What is wanted little: latency and energy are timed by costs=measured."


@app.command(epilog="Example: swe recommend sweep-demo --max-loss-increase 0.02 --minimise bytes")
@_page("recommend.recommend", "config_dir json")
def recommend(
    words: RunWords,
    most: Annotated[float, typer.Option("--max-loss-increase", help=LOSS)] = 0.01,
    minimise: Annotated[Minimised, typer.Option(help=MINIMISE)] = "bytes",
) -> None:
    """The cheapest cut that is surely good enough, the runner-up, and how to make it; or none."""


COMPRESS = "Weights without their zeros, in one file; of any run."
OUTPUT = "Write here instead of beside the run."
ROWS = "Show every line, cut by cut, not the best alone."
TOLERANCE = "What a cut may cost and still hold, in nats per token."
Format = Literal["csv", "md", "json", "latex", "html"]
FORMAT = "Print the means so, instead: all columns (csv, json), or lines by cuts."
HTML = "Also write report.html: one page that a browser opens, offline."
AGAINST = "Also compare every line, paired, with this criterion's of the same settings."


@app.command(epilog="Example: swe report sweep-demo")
@_page("report.report", "config_dir json quiet")
def report(
    words: RunWords,
    folder: Annotated[Path | None, _option("--output", "-o", help=OUTPUT)],
    against: Annotated[str | None, _option(metavar="CRITERION", help=AGAINST)],
    rows: Annotated[bool, _flag("--rows", help=ROWS)],
    form: Annotated[Format | None, _option("--format", help=FORMAT)],
    as_html: Annotated[bool, _flag("--html", help=HTML)],
    *,
    tolerance: Annotated[float, typer.Option(min=0.0, metavar="NATS", help=TOLERANCE)] = 0.01,
) -> None:
    """Tables and figures of a sweep (the newest, unless named), or of all cuts of a training.

    A sweep may be an address, as s3://bucket/results/runs/sweep-demo-1a2b3c4d: its rows are copied.
    """


@app.command(epilog="Example: swe compare train-gpt_nano-04fb82ab prune-gpt_nano-swe-1a2b3c4d")
@_page("compare.compare", "json")
def compare(words: RunWords) -> None:
    """Runs side by side: the settings in which they differ, their losses, paired differences."""


@app.command(epilog="Example: swe export prune-smollm2-wanda-1a2b3c4d pruned --dtype bfloat16")
@_page("model.export", "config_dir")
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help=RUN)],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder.")],
    words: Words,
    dtype: Annotated[Literal["float32", "bfloat16", "float16"] | None, _option(help=DTYPE)],
    compress: Annotated[bool, _flag("--compress", help=COMPRESS)],
) -> dict[str, Any]:
    """A run of model=huggingface as a folder that transformers opens, or any run compressed."""
    return {"words": [run, *words], "folder": folder, "dtype": dtype, "compress": compress}


@app.command(epilog='Example: swe generate --prompt "And God said"')
@_page("model.generate", "config_dir")
def generate(
    words: RunWords,
    prompt: Annotated[str, typer.Option(help="The text to continue, or the question.")] = "\n",
    image: Annotated[Path | None, typer.Option(help="What the question is about.")] = None,
    length: Annotated[int, typer.Option(min=1, help="Tokens to add.")] = 200,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest.")] = 0.8,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
) -> None:
    """Continue a text, or answer a question about an image: dense and pruned side by side."""


WATCH = "Look again every second, on a terminal, until Ctrl-C."
CLEAN = "List what processes that are gone left half-written or held, and ask whether to remove it."
YES = "Do not ask; what processes of other machines left then stays."


@app.command(epilog="Example: swe runs results_dir=/data/results")
@_page("inventory.runs", "json")
def runs(
    words: Words,
    watch: Annotated[bool, _flag("--watch", help=WATCH)],
    clean: Annotated[bool, _flag("--clean", help=CLEAN)],
    yes: Annotated[bool, _flag("--yes", help=YES)],
) -> None:
    """All runs, newest first: kind, status, size; or what killed processes left among them."""


@app.command(epilog="Example: swe criteria stability")
@_page("catalogue.criteria", "config_dir")
def criteria(name: Name = None) -> None:
    """Every criterion: its equation and source, what it needs; or one of them whole."""


@app.command(epilog="Example: swe allocations owl")
@_page("catalogue.allocations", "config_dir")
def allocations(name: Name = None) -> None:
    """Every allocation: how many weights each tensor loses; or one of them whole."""


@app.command(epilog="Example: swe patterns 2of4")
@_page("catalogue.patterns", "config_dir")
def patterns(name: Name = None) -> None:
    """Every pattern: which masks are legal, what really shrinks; or one of them whole."""


@app.command(epilog="Example: swe columns jaccard_magnitude")
@_page("catalogue.columns", "json")
def columns(name: Name = None) -> None:
    """What each column of a table means, with its unit; or one of them."""


@app.command(epilog="Example: swe doctor")
@_page("inventory.doctor", "json")
def doctor(words: Words) -> None:
    """Versions, device, threads, where data and results live, what is optional and missing."""


# Running one, and what can go wrong


def _run(page: str, common: dict[str, Any], words: Sequence[str] = (), **own: Any) -> None:
    """Run a page with its ``own`` options or show its configuration; end with its exit code."""
    debug, show, form = common.pop("debug"), common.pop("show", False), own.pop("form", None)
    form = "json" if common.pop("json", False) else form
    module, command = page.split(".")
    rank, first = (os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK"))
    if rank != "0":  # of torchrun the first speaks
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        common["quiet"] = True
    try:
        if command != "train" and os.environ.get("WORLD_SIZE", "1") != "1":
            why = f"swe {command} is the work of one process, and torchrun started several."
            raise UsageError(why, f"Leave torchrun out: swe {command}")
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            warnings.simplefilter("default", SweWarning)  # each once
            from swe_cli.commands.shared import Page

            run = getattr(import_module(f"swe_cli.commands.{module}"), command)
            this = Page(command, words, form=None if show else form, **common)
            if show:
                this.print_config()
            else:
                run(this, **own)
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
        if first == "0" or not isinstance(error, SweError):  # else the first says so
            _print_error(explained.message, "yellow" if explained.exit_code > 128 else "red")
            if explained.hint:
                _print_error(explained.hint)
        raise typer.Exit(explained.exit_code) from None


def _print_warning(
    message: Warning | str, category: type[Warning], *where: Any, **more: Any
) -> None:
    """A sentence where the warning is ours; what a library has to say only developers want."""
    if issubclass(category, SweWarning) and os.environ.get("RANK", "0") == "0":
        _print_error(str(message), "yellow")


def _explained(error: Exception) -> SweError:
    """One sentence, also for what nobody foresaw: a place that refuses, no memory, our defects."""
    if isinstance(error, SweError):
        return error
    if isinstance(error, typer.Abort):
        return SweError("Nobody answered.", "Add --yes to be asked nothing.")
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

    from swe_cli.report.text import printable

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(printable(text), style=style, markup=False)


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
    while frame:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os._exit(128 + number)  # an exception in a module's C++ would abort the process
        frame = frame.f_back
    raise SystemExit(128 + number)


def main() -> None:
    """Entry point of the ``swe`` console script."""
    signal.signal(signal.SIGINT, _interrupt)
    # How long OpenMP threads spin while they wait: endless spinning slows a machine that others use
    # too, a very short spin small models on an idle one. Measured in docs/LOG.md.
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # signs that a terminal lacks have others
            stream.reconfigure(errors=ASCII_SIGNS)
    app()
