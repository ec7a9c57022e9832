"""swe recommend: the engineer's question, answered from rows that are there."""

import shlex
from collections.abc import Mapping
from typing import Any

from swe_cli.commands.evidence import Beside
from swe_cli.commands.report import options_of, table_of
from swe_cli.commands.shared import Page
from swe_cli.config import compose
from swe_cli.errors import UsageError
from swe_cli.experiments.cell import config_of
from swe_cli.report.console import print_grid, say, title
from swe_cli.report.costs import faster, ledger
from swe_cli.report.recommend import TIMED, Option, choose, sentences, worst
from swe_cli.report.summary import cut_of, summarise
from swe_cli.report.tables import records, split_by_protocol
from swe_cli.report.text import count, exact, word
from swe_cli.store import Run

MOST = (
    "Nats more than the best control, raw or calibrated, whichever is worse; ≤: by a 95 % bound. "
    "Chosen by one half of the windows, held out: on the other."
)
FRONT = 6  # cuts of it that are shown: the best
UNITS = {"bytes": "bytes", "flops": "FLOPs", "latency": "ms", "energy": "J/M tokens"}
KEYS = ("criterion", "allocation", "pattern", "base", "prunable", "roles", "recovery", "schedule")


def recommend(this: Page, *, most: float, minimise: str) -> None:
    """Print the choice, the runner-up, the Pareto front and what to type; or none, and why."""
    if not most >= 0:
        why = f"--max-loss-increase {most:g} is no loss that one could allow."
        raise UsageError(why, "Give nats per token, 0 or more: --max-loss-increase 0.01")
    run = this.chosen_run(("sweep", "train"), "Choosing from", quiet=False)
    table, beside = table_of(run, this.root), Beside(run.path.parent, this.root)
    lines = beside.costs(table, **this.composed.values["energy"])
    costs = {line["config_hash"]: line for line in records(lines)}
    results: list[dict[str, Any]] = []
    for group in split_by_protocol(table):
        summary = summarise(group)
        found = choose(summary, beside.both, costs, minimise, most)
        what = f"{summary.model} on {summary.data}: the least {minimise}"
        title(this.console, f"{what} for at most {most:g} nats more, raw and calibrated")
        best, front = found.eligible[:2], list(found.front)
        left, front = front[:-FRONT], front[-FRONT:]  # what is cheapest loses far too much
        shown = [*best, *(option for option in front if option not in best)]
        ranks = ["choice", "runner-up"][: len(best)] + ["front"] * (len(shown) - len(best))
        names = [
            f"{r}: {cut_of(of.point)}, {of.point['label']}"
            for r, of in zip(ranks, shown, strict=True)
        ]
        rows = [[name, *_cells(of, most)] for name, of in zip(names, shown, strict=True)]
        heads = ["", UNITS[minimise], "of dense", "nats ≤", "held out", "≤", "fails"]
        print_grid(this.console, heads, rows)
        beside_own = " Each was timed beside its own dense model." if minimise in TIMED else ""
        also = f" {count(len(left), 'cheaper cut')} of the front lose more." if left else ""
        say(this.console, MOST + beside_own + also, "dim")
        marked = [w for of in costs.values() if "busy" in (w := of.get("warnings") or "")]
        if beside_own and marked:
            say(this.console, f"Timings are marked: {marked[0]}.", "yellow")
        said = [*sentences(found, most)]
        for sentence in said:
            say(this.console, sentence)
        told = (minimise, "share", "nats", "bound_nats", "held_out_nats", "held_out_bound_nats")
        pairs = zip(names, map(_values, shown), strict=True)
        cuts = [{"cut": name} | dict(zip(told, of, strict=True)) for name, of in pairs]
        results.append({"cuts": cuts, "said": said})
        if not found.eligible:
            continue
        row = found.eligible[0].point["cells"][summary.seeds[0]]
        timed = costs.get(row["config_hash"], {})
        if timed.get("speedup") is not None:
            say(this.console, f"{faster(timed)} {ledger(timed)}")
        config = config_of(beside.cell(row["config_hash"]))
        training = this.named(Run(beside.runs / row["training"]))
        results[-1]["command"] = command = _command(this, row, training, config)
        this.print(f"  make it: {command}")
        this.print("  ship it: swe export RUN FOLDER --compress    (RUN: the name it prints)")
    this.result(results)


def _values(option: Option) -> tuple[float, ...]:
    return option.cost, option.share, *worst(option.chosen_by), *worst(option.held)


def _cells(option: Option, most: float) -> list[str]:
    """What is shown of it, and at last why it is not chosen: it may lose more, or is no cheaper."""
    cost, share, _, *nats = _values(option)
    spelt = f"{cost:,.4g}" if cost < 1e4 else f"{cost:,.0f}"
    fails = "loss" if option.bound > most else "" if option.cheaper else "cost"
    return [spelt, f"{share:.2f}", *(f"{of:+.3f}".replace("-", "−") for of in nats), fails]


def _command(this: Page, row: Mapping[str, Any], training: str, config: Mapping[str, Any]) -> str:
    """What to type for it: whatever is not as ``swe prune`` has it anyway."""
    usual = compose("prune", (), this.root)
    words = [
        f"{key}={word(row[key])}"
        for key in KEYS
        if row.get(key) is not None
        and row[key] != (usual[key].name if key in usual.components else usual.values[key])
    ]
    words += [f"{key}={word(of)}" for key, of in options_of(config, this.root).items()]
    amount = "rate" if row["ratio"] is None else "ratio"
    return shlex.join(["swe", "prune", training, f"--{amount}", exact(row[amount]), *words])
