"""Bench 12: a training step whose backward pass goes through a fifth of the outputs.

    python scripts/bench/ssprop.py

gpt_small (width 384) with and without dropout, on batches of four windows of 256 tokens, optimizer
and all, on one thread. Wanted: ≤ 0.65 of the CPU time of a dense step. Beside it the same of FLOPs,
of all matrix products.
"""

import time
from functools import partial

import torch
from common import alternate

from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import DataShape, Setup
from swe_cli.device import Machine
from swe_cli.evaluation.cost import flops_of
from swe_cli.training.backward import Backward
from swe_cli.training.state import TrainState, fit, gradient

SYMBOLS, WINDOWS, ROUNDS, KEEP = 65, 4, 5, 0.2


class Noise:
    """Any tokens: what they say takes no time."""

    def random_batch(self, split, *, size, context, seed):
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(SYMBOLS, (size, context), generator=generator)
        return {"tokens": tokens, "targets": tokens}


def begun(how: str, dropout: float) -> tuple[TrainState, float]:
    """A training in its second epoch, and the FLOPs of a step."""
    chosen = component("model", "gpt_small", ConfigRoot(), {"dropout": dropout})
    model = chosen.build(DataShape(SYMBOLS))
    layers = [m for m in model.layers.modules() if isinstance(m, torch.nn.Linear)]
    epoch, seed = 10**6, 0 if how == "random" else None
    backward = Backward() if how == "dense" else Backward(layers, KEEP, epoch, seed)
    setup = Setup(model, Noise(), Machine(torch.device("cpu"), "float32", 1), seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    state = TrainState(setup, optimizer, lambda step: 1e-3, WINDOWS, backward=backward, step=epoch)
    fit(state, 1)
    return state, flops_of(model, partial(gradient, state))


def main() -> None:
    torch.set_num_threads(1)
    for dropout in (0.2, 0.0):
        dense, whole = begun("dense", dropout)
        for how in ("ssprop", "random"):
            thinned, flops = begun(how, dropout)
            ours, theirs, ratio = alternate(
                lambda of=thinned: fit(of, 1),
                lambda of=dense: fit(of, 1),
                ROUNDS,
                clock=time.process_time,
            )
            times = f"{ours:.2f} s / {theirs:.2f} s = {ratio:.2f}"
            print(f"12. {how}, dropout {dropout}: {times} of a step, {flops / whole:.2f} of FLOPs")


if __name__ == "__main__":
    main()
