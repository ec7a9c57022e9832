"""Bench 10: least squares for a mask that is there, beside SparseGPT, which chooses its own.

    python scripts/bench/updates.py

Every linear layer of a block of gpt_nano and of gpt_small, 50 % by magnitude, on inputs as after a
GELU (few causes, a shared mean), which take more steps than white ones. Wanted: seconds a block.
"""

import torch
from common import alternate

from swe_cli.config import ConfigRoot, component
from swe_cli.contracts import LayerInputs
from swe_cli.patterns.shapes import Unstructured
from swe_cli.pruning.calibration import ChooseOfLayer

WIDTHS = {"gpt_nano": 128, "gpt_small": 384}
SHAPES = {"qkv": (3, 1), "projection": (1, 1), "expand": (4, 1), "contract": (1, 4)}
TOKENS, ROUNDS = 4096, 5
UPDATE = component("update", "least_squares", ConfigRoot()).build()
SPARSEGPT = component("criterion", "sparsegpt", ConfigRoot()).build()


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    for model, width in WIDTHS.items():
        total = [0.0, 0.0]
        for layer, (out, columns) in SHAPES.items():
            weight = torch.randn(out * width, columns * width, generator=generator)
            causes = torch.randn(TOKENS, width // 4, generator=generator)
            mixing = torch.randn(width // 4, columns * width, generator=generator)
            x = torch.nn.functional.gelu(causes @ mixing + 1)
            inputs = LayerInputs(x.square().sum(0), x.T @ x)
            kept = weight.abs() >= weight.abs().median()
            whole = torch.ones_like(kept)

            def update(weight=weight, kept=kept, inputs=inputs) -> None:
                UPDATE.solve(weight, kept, inputs)

            def sparsegpt(weight=weight, inputs=inputs, whole=whole) -> None:
                half = weight.numel() // 2
                choose = ChooseOfLayer(weight.clone(), half, Unstructured(), "tensor", whole)
                SPARSEGPT.prune_layer(weight.clone(), inputs, choose)

            update(), sparsegpt()
            ours, theirs, ratio = alternate(update, sparsegpt, ROUNDS)
            total = [total[0] + ours, total[1] + theirs]
            shape = "x".join(map(str, weight.shape))
            print(f"    {model} {layer:11} {shape:9} {ours:.3f} s / {theirs:.3f} s = {ratio:.1f}")
        print(f"10. {model}, a block: least_squares {total[0]:.2f} s / sparsegpt {total[1]:.2f} s")


if __name__ == "__main__":
    main()
