"""swe recommend: the engineer's question, answered from rows that are there."""

import shlex
from collections.abc import Mapping
from typing import Any

from swe_cli.commands.evidence import Beside
from swe_cli.commands.report import options_of, table_of
from swe_cli.commands.shared import Page
from swe_cli.config import compose
from swe_cli.files import read_json
from swe_cli.report.console import print_table, say, title
from swe_cli.report.costs import faster, ledger
from swe_cli.report.recommend import Option, choose, sentences
from swe_cli.report.summary import summarise
from swe_cli.report.tables import records, split_by_protocol
from swe_cli.report.text import exact, word

ROWS = {"choice": 1, "runner-up": 2}  # of what is eligible
KEYS = ("criterion", "allocation", "pattern", "base", "prunable", "roles", "recovery", "schedule")


def recommend(this: Page, *, most: float, minimise: str) -> None:
    """Print the choice, the runner-up, the Pareto front and what to type; or none, and why."""
    run = this.chosen_run(("sweep", "train"), "Choosing from", quiet=False)
    table, beside = table_of(run, this.root), Beside(run.path.parent, this.root)
    timed = beside.costs(table, **this.composed.values["energy"])
    costs = {line["config_hash"]: line for line in records(timed)}
    results: list[dict[str, Any]] = []
    for group in split_by_protocol(table):
        summary = summarise(group)
        found = choose(summary, beside.windows, costs, minimise, most)
        what = f"{summary.model} on {summary.data}: the least {minimise}"
        title(this.console, f"{what} for at most {most:g} nats more, raw and calibrated")
        rows = [["choice", *_cells(of)] for of in found.eligible[:1]]
        rows += [["runner-up", *_cells(of)] for of in found.eligible[1:2]]
        rows += [["front", *_cells(of)] for of in found.front]
        heads = ["", minimise, "of dense", "could cost", "held out", "what"]
        print_table(this.console, heads, rows)
        said = [*sentences(found, most, len(summary.seeds))]
        for sentence in said:
            say(this.console, sentence)
        results.append({"rows": [dict(zip(heads, row, strict=True)) for row in rows], "said": said})
        if not found.eligible:
            continue
        row = found.eligible[0].point["cells"][summary.seeds[0]]
        told = costs.get(row["config_hash"], {})
        if told.get("speedup") is not None:
            say(this.console, f"{faster(told)} {ledger(told)}")
        config = read_json(beside.cell(row["config_hash"]) / "cell.json")
        results[-1]["command"] = command = _command(this, row, config)
        this.print(f"  make it: {command}")
        this.print("  ship it: swe export RUN FOLDER --compress    (RUN: the name it prints)")
    this.result(results)


def _cells(option: Option) -> list[str]:
    held = max(of.mean for of in option.held.values())
    return [
        f"{option.cost:,.4g}" if option.cost < 1e4 else f"{option.cost:,.0f}",
        f"{option.share:.2f}",
        f"{option.bound:+.3f}",
        f"{held:+.3f}",
        f"{option.point['label']} at {exact(option.point['ratio']) or exact(option.point['x'])}",
    ]


def _command(this: Page, row: Mapping[str, Any], config: Mapping[str, Any]) -> str:
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
    return shlex.join(["swe", "prune", row["training"], f"--{amount}", exact(row[amount]), *words])
