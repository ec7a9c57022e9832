"""Bench 9: what a smaller model gains, and what a mask alone does not.

    python scripts/bench/shrinking.py

Forward passes of gpt_small (4 x 256 tokens, no gradients): dense, with half of the neurons cut
(and half of the heads), masked, and then taken out. Wanted: dense / shrunk ≥ 1.35 without the
neurons, ≥ 1.8 without neurons and heads; dense / masked is about 1: zeros are multiplied, too.
"""

import copy
import tempfile
from pathlib import Path

import torch
from common import alternate

from swe_cli.allocation.counts import Uniform
from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import DataShape, Evidence, Model, Pattern, Setup
from swe_cli.device import resolve
from swe_cli.files import write_tensors
from swe_cli.patterns.shapes import Head, Neuron
from swe_cli.pruning.masks import apply_masks
from swe_cli.pruning.prune import MAGNITUDE, Method, Scorer, prune
from swe_cli.pruning.shrink import load, shrink
from swe_cli.records import Tensors
from swe_cli.seeds import global_randomness

VOCABULARY, ROWS, ROUNDS = 65, 4, 25
CUTS: dict[str, tuple[list[Pattern], float]] = {
    "half the neurons": ([Neuron()], 1.35),
    "half the neurons and heads": ([Neuron(), Head()], 1.8),
}


def masked(dense: Model, patterns: list[Pattern]) -> Model:
    model = copy.deepcopy(dense)

    def lens(tensors: Tensors) -> Tensors:
        return model.prunable(tensors, "linear")

    setup = Setup(model, None, resolve("cpu", "float32", torch.get_num_threads()), seed=0)
    for pattern in patterns:
        weights = lens(model.weights())
        method = Method(MAGNITUDE, 0.5, allocation=Uniform(), pattern=pattern)
        scorer = Scorer(setup, lens, Evidence(weights))
        apply_masks(prune(method, scorer), weights)
    return model


def shrunk(model: Model) -> Model:
    small = copy.deepcopy(model)
    load(small, shrink(model, model.weights()))
    return small


def stored(model: Model) -> int:
    """Bytes on disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        write_tensors(path, model.weights())
        return path.stat().st_size


@torch.inference_mode()
def main() -> None:
    with global_randomness(0, "init"):
        dense = component("model", "gpt_small", ConfigRoot()).build(DataShape(VOCABULARY)).eval()
        tokens = torch.randint(VOCABULARY, (ROWS, dense.context))
    batch = {"tokens": tokens, "targets": tokens.roll(-1, 1)}
    print(f"gpt_small, batch {ROWS} x {dense.context}, {torch.get_num_threads()} threads")
    print(f"   dense: {stored(dense):,} bytes")
    for name, (patterns, wanted) in CUTS.items():
        large = masked(dense, patterns)
        small = shrunk(large)
        torch.testing.assert_close(small(batch).logits, large(batch).logits, rtol=1e-4, atol=1e-4)
        whole, part, ratio = alternate(lambda: dense(batch), lambda m=small: m(batch), ROUNDS)
        _, zeros, same = alternate(lambda: dense(batch), lambda m=large: m(batch), ROUNDS)
        print(f"   {name} masked: {stored(large):,} bytes; {1e3 * zeros:.1f} ms: {same:.2f} x")
        print(f"   {name} taken out: {stored(small):,} bytes")
        print(
            f"9. {name}: dense {1e3 * whole:.1f} ms / shrunk {1e3 * part:.1f} ms = {ratio:.2f} "
            f"(wanted: at least {wanted})"
        )


if __name__ == "__main__":
    main()
