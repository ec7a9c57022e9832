"""What was timed, beside dense; the energy it stands for; and when a cut has paid back."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from swe_cli.errors import UsageError, optional
from swe_cli.report.console import print_table, say
from swe_cli.report.text import count, number

JOULES, SPENT = "joules_per_million_tokens", "spent_joules"
# What a cut takes before it can save; "training" is the rest of one that an early cut is made in.
STAGES = ("tracking", "score", "cut", "update", "transform", "quantize", "recovery", "training")
TIMED = {  # what is shown of a timing: its words, its unit in the column's, digits
    "latency_p50_ms": ("latency, median (ms)", 1.0, ".2f"),
    "latency_p95_ms": ("latency, 95 % (ms)", 1.0, ".2f"),
    "tokens_per_second": ("tokens/s, one window", 1.0, ",.0f"),
    "tokens_per_second_large": ("tokens/s, batch", 1.0, ",.0f"),
    JOULES: ("kJ per million tokens", 1e-3, ",.2f"),
    "peak_memory_bytes": ("peak memory (MB)", 1e-6, ",.1f"),
}


def with_energy(costs: pd.DataFrame, watts: float | None, country: str | None) -> pd.DataFrame:
    """``costs`` with, in joules, what was spent before a cut saves, and what a million tokens take;
    ``energy`` says how that is known: "measured"; "estimated", from ``watts``, or "partly
    estimated", where no counter was read in some stage; else "". Where a ``country`` is named,
    ``spent_kg_co2e``, too.
    """
    seconds, joules = (
        costs.reindex(columns=[f"{stage}.{what}" for stage in STAGES])
        for what in ("seconds", "joules")
    )
    joules.columns = seconds.columns
    unread = seconds.gt(0) & joules.isna()
    known = joules if watts is None else joules.mask(unread, watts * seconds)
    lacks = (seconds.gt(0) & known.isna()).any(axis=1)
    costs = costs.assign(spent_seconds=seconds.sum(axis=1))
    costs[SPENT] = spent = known.sum(axis=1, min_count=1).mask(lacks)
    ways = [spent.isna(), joules.isna().all(axis=1), unread.any(axis=1)]
    costs["energy"] = np.select(ways, ["", "estimated", "partly estimated"], "measured")
    if watts is not None:
        for of in ("", "dense_"):
            if f"{of}tokens_per_second_large" in costs:
                estimated = watts * 1e6 / costs[f"{of}tokens_per_second_large"]
                costs[of + JOULES] = costs.get(of + JOULES, estimated).fillna(estimated)
    if country is not None:
        costs["spent_kg_co2e"] = costs[SPENT] / 3.6e6 * carbon_intensity(country)
    return costs


def carbon_intensity(country: str) -> float:
    """kg CO₂e of a kWh there, by codecarbon's table. UsageError for a country it does not have."""
    source = optional("codecarbon.input", "energy.country", "energy").DataSource()
    table = source.get_global_energy_mix_data()
    if (there := table.get(country.upper())) is None:
        raise UsageError(f"energy.country={country} is not in the table.", "Write it as DEU, FRA")
    return float(there["carbon_intensity"]) / 1000


def faster(timed: Mapping[str, Any]) -> str:
    """Whether it is, in a sentence."""
    low, high, size = timed["saved_low"], timed["saved_high"], int(timed["batch"])
    if timed["only_masked"]:
        return "No faster than dense: what is only masked is multiplied all the same."
    if not low <= 0 <= high and (low > 0) == (timed["speedup"] > 1):
        factor = timed["speedup"] if low > 0 else 1 / timed["speedup"]
        return f"{factor:.2f}× as {'fast' if low > 0 else 'slow'} as dense at batch {size}."
    return f"No faster than dense: at batch {size} its time differs by less than the noise."


def ledger(timed: Mapping[str, Any]) -> str:
    """After how many tokens what it took (tracking, scoring, recovery; training is sunk) has paid
    back, with the interval of the timings: ``pays back after 12 [9, 18] million tokens``.
    """
    spent = timed.get("spent_seconds")
    if spent is None:
        return ""
    low, mean, high = (timed[f"saved_{of}"] / 1e3 for of in ("low", "ms", "high"))
    took = f"It took {spent:.1f} s; a million tokens save {mean:.2f} s [{low:.2f}, {high:.2f}]"
    if low <= 0 or timed["only_masked"]:
        return f"{took}: it never pays back in time, as far as these timings tell."
    after = [number(spent / saved) for saved in (mean, high, low)]
    return f"{took}: it pays back after {after[0]} [{after[1]}, {after[2]}] million tokens."


def print_costs(console: Console, timed: Mapping[str, Any]) -> None:
    """What was timed, beside the dense model, and what follows."""
    rows = []
    for name, (words, unit, digits) in TIMED.items():
        if name in timed:
            values = (timed.get(f"{of}{name}") for of in ("", "dense_"))
            rows.append([words, *("" if v is None else format(v * unit, digits) for v in values)])
    print_table(console, ["", "this", "dense"], rows)
    say(console, faster(timed))
    for warning in timed["warnings"]:
        say(console, f"Timer: {warning}.", "yellow")


def print_layers(console: Console, layers: Mapping[str, tuple[float, float]]) -> None:
    """Which products skip zeros, and what each won."""
    rows = [
        [name, f"{zeros:.1%}", f"{won:.2f}×" if won else "–", "csr" if won > 1 else "dense"]
        for name, (zeros, won) in layers.items()
    ]
    print_table(console, ["layer", "zeros", "speedup", "computed"], rows)
    won = sum(times > 1 for _, times in layers.values())
    of = count(len(layers), "layer")
    say(console, f"{won} of {of} skip zeros, since that is faster; –: not tried.")
