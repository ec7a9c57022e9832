"""Benches 1 and 2: what tracking costs, and what our step costs beside a plain one.

    python scripts/bench/tracking.py [gpt_nano|gpt_small]

1. One observation of every weight / one training step. Wanted: ≤ 1 % gpt_small, ≤ 1.5 % gpt_nano.
2. A tracked step through swe / the same model stepped plainly (forward, backward, fused AdamW on
   the same batch). Wanted: ≤ 1.03.
"""

import sys
from pathlib import Path

import torch
from common import alternate

from swe_cli.compose import ConfigRoot, compose
from swe_cli.seeds import derive, global_randomness
from swe_cli.sweeps.build import plan_training
from swe_cli.training.loop import optimizer_step
from swe_cli.training.tracker import Tracker

RESULTS = Path("results")
ROUNDS = {"gpt_nano": 60, "gpt_small": 12}
BATCH = {"gpt_nano": 24, "gpt_small": 4}


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "gpt_nano"
    overrides = (f"model={name}", f"training.batch_size={BATCH[name]}", "training.gradient_clip=0")
    plan = plan_training(compose("train", overrides), ConfigRoot(), RESULTS)
    training = plan.build(RESULTS)
    model, dataset, machine = training.model, training.dataset, training.machine
    model.train()
    weights = {n: p.detach() for n, p in model.named_parameters()}
    tracker = Tracker(
        weights,
        {n: make(weights) for n, make in training.statistics.items()},
        model.prunable(weights, "linear"),
        training.tracking,
        steps=1500,
        steps_per_epoch=1000,
        seed=0,
    )
    optimizer = training.recipe.build_optimizer(model.parameters())
    counter = iter(range(1, 1_000_000))

    def batch(step: int) -> dict[str, torch.Tensor]:
        seed = derive(0, "batches", step)
        return dataset.random_batch("train", size=BATCH[name], context=model.context, seed=seed)

    def ours() -> None:
        step = next(counter)
        with global_randomness(0, "dropout", step):
            loss = optimizer_step(model, optimizer, [batch(step)], 0.0, machine)
        tracker.after_step(step, {"loss_nats": loss})

    fixed = batch(0)

    def plain() -> None:
        loss = torch.nn.functional.cross_entropy(
            model.logits(model.hidden(model.inputs(fixed))).flatten(0, 1),
            fixed["targets"].flatten(),
        )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    def observe() -> None:
        tracker.after_step(next(counter), {})

    for _ in range(3):
        ours(), plain(), observe()
    tracked, bare, ratio = alternate(ours, plain, ROUNDS[name])
    observed, step, share = alternate(observe, plain, ROUNDS[name])
    print(f"{name}, batch {BATCH[name]} x {model.context}, {machine.threads} threads")
    print(f"1. observation {1e3 * observed:.2f} ms / step {1e3 * step:.1f} ms = {share:.2%}")
    print(f"2. tracked {1e3 * tracked:.1f} ms / plain {1e3 * bare:.1f} ms = {ratio:.3f}")


if __name__ == "__main__":
    main()
