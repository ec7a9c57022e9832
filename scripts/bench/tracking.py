"""Benches 1 and 2: what tracking costs, and what our step costs beside a plain one.

    python scripts/bench/tracking.py [gpt_nano|gpt_small] [--all] [--recipe-batch]

1. Tracking of every weight / one training step, what a criterion needs by default (wanted: ≤ 1 %
   gpt_small, ≤ 1.5 % gpt_nano) or, with --all, every statistic of conf/statistic at once, those
   that look at gradients before the step included (wanted: ≤ 5 % gpt_small).
2. A tracked step through swe / the same model stepped plainly (forward, backward, fused AdamW on
   the same batch). Wanted: ≤ 1.03; with --all it is what 1 adds to it.

The batch is small (gpt_small: 4 windows, a sixth of the recipe's), so that shares are upper bounds;
--recipe-batch takes the recipe's own, as swe train does. With --all it is also checked that
tracking leaves every weight as it is, to the bit.
"""

import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import alternate, seconds

from swe_cli.config import ConfigRoot, compose
from swe_cli.experiments.ensure import build
from swe_cli.experiments.training import training_spec
from swe_cli.training.state import Callback, TrainState, fit
from swe_cli.training.tracker import Tracker

ROUNDS = {"gpt_nano": 60, "gpt_small": 16}
BATCH = {"gpt_nano": 24, "gpt_small": 4}
WANTED = {"gpt_nano": "1.5 %", "gpt_small": "1 %"}


def timed(method: Callable[..., None], times: list[float]) -> Callable[..., None]:
    def call(*arguments: Any) -> None:
        times.append(seconds(lambda: method(*arguments)))

    return call


class Timed(Callback):
    """A callback, and how long it took at every step."""

    def __init__(self, callback: Callback, times: list[float]) -> None:
        self.callback, self.times = callback, times

    def before_step(self, state: TrainState) -> None:
        self.times.append(seconds(lambda: self.callback.before_step(state)))

    def after_step(self, state: TrainState, metrics: dict[str, Any]) -> None:
        self.times[-1] += seconds(lambda: self.callback.after_step(state, metrics))


def main() -> None:
    everything = "--all" in sys.argv[1:]
    name = next((word for word in sys.argv[1:] if word in BATCH), "gpt_nano")
    size = 24 if "--recipe-batch" in sys.argv[1:] else BATCH[name]  # conf/training/adamw.yaml
    root = ConfigRoot()
    recorded = root.options("statistic") if everything else []
    overrides = (f"model={name}", f"training.batch_size={size}", "training.gradient_clip=0")
    training = build(training_spec(compose("train", overrides), root, Path("results"), recorded))
    model, machine = training.setup.model, training.setup.machine
    weights = model.weights()
    tracker = Tracker(
        weights,
        {n: make(weights) for n, make in training.statistics.items()},
        model.prunable(weights, "linear"),
        training.tracking,
        steps=1500,
        steps_per_epoch=1000,
        seed=0,
    )
    each: dict[str, list[float]] = {n: [] for n in tracker.statistics}
    for n, statistic in tracker.statistics.items():
        method = "before_step" if statistic.sees("before_step") else "update"
        method = "after_step" if statistic.sees("after_step") else method
        setattr(statistic, method, timed(getattr(statistic, method), each[n]))
    state = training.recipe.begin(training.setup)
    optimizer = state.optimizer
    tracking: list[float] = []  # seconds, of every step that was tracked
    watched = [Timed(tracker, tracking)]

    def ours() -> None:
        fit(state, 1, watched)

    fixed = training.setup.dataset.random_batch("train", size=size, context=model.context, seed=0)

    def plain() -> None:
        loss = torch.nn.functional.cross_entropy(
            model.logits(model.hidden(model.inputs(fixed))).flatten(0, 1),
            fixed["targets"].flatten(),
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    for _ in range(3):
        ours(), plain()
    before = {n: w.clone() for n, w in weights.items()}
    tracker.after_step(state, {})
    if not all(torch.equal(w, before[n]) for n, w in weights.items()):
        raise SystemExit("Tracking changed a weight.")
    tracking.clear()
    tracked, bare, ratio = alternate(ours, plain, ROUNDS[name])
    observed, share = statistics.median(tracking), statistics.median(tracking) / bare
    print(f"{name}, batch {size} x {model.context}, {machine.threads} threads")
    for n, times in each.items():
        print(f"   {n:17} {1e3 * statistics.median(times):.2f} ms")
    wanted = "5 %" if everything else WANTED[name]
    print(
        f"1. tracking {1e3 * observed:.2f} ms / plain step {1e3 * bare:.1f} ms = {share:.2%}"
        f" (wanted: at most {wanted})"
    )
    print(f"2. tracked {1e3 * tracked:.1f} ms / plain {1e3 * bare:.1f} ms = {ratio:.3f}")


if __name__ == "__main__":
    main()
