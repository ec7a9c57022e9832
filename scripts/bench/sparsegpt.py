"""Bench 8: SparseGPT beside llmcompressor's, layer by layer on the same Hessians.

    python scripts/bench/sparsegpt.py

Factor and prune every linear layer of a gpt_small block, 50 % unstructured and 2:4. Needs the extra
``peers``. Wanted: ours / theirs ≤ 1.
"""

import torch
from common import alternate
from llmcompressor.modifiers.pruning.sparsegpt.sgpt_sparsify import sparsify_weight
from torch import nn

from swe_cli.contracts import LayerInputs
from swe_cli.criteria.layers import SparseGPT
from swe_cli.patterns.shapes import NOfM, Unstructured
from swe_cli.pruning.calibration import ChooseOfLayer

SHAPES = {
    "qkv": (1152, 384),
    "projection": (384, 384),
    "expand": (1536, 384),
    "contract": (384, 1536),
}
PATTERNS = {"unstructured": (Unstructured(), 0, 0), "2:4": (NOfM(keep=2, of=4), 2, 4)}
TOKENS, ROUNDS = 4096, 7
OURS = SparseGPT(damping=0.01, block=128)
THEIRS = {"block_size": 128, "dampening_frac": 0.01, "preserve_sparsity_mask": False}


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    layers = {}
    for name, (out, columns) in SHAPES.items():
        mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
        x = torch.randn(TOKENS, columns, generator=generator) @ (mixing + torch.eye(columns))
        module = nn.Linear(columns, out, bias=False).requires_grad_(False)
        module.weight.copy_(torch.randn(out, columns, generator=generator))
        layers[name] = module, LayerInputs(x.square().sum(0), x.T @ x)
    for name, (pattern, n, m) in PATTERNS.items():
        total = [0.0, 0.0]
        for layer, (module, inputs) in layers.items():
            found = {}

            def ours(module=module, inputs=inputs, found=found, pattern=pattern) -> None:
                weight = module.weight.clone()
                choose = ChooseOfLayer(
                    weight.clone(),
                    weight.numel() // 2,
                    pattern,
                    "tensor",
                    torch.ones_like(weight, dtype=torch.bool),
                )
                OURS.prune_layer(weight, inputs, choose)
                found["ours"] = weight

            def theirs(module=module, inputs=inputs, found=found, n=n, m=m) -> None:
                hessians = {module: inputs.gram.clone()}  # which they prune in place
                found["theirs"] = sparsify_weight(module, hessians, 0.5, n, m, **THEIRS)[1]

            ours(), theirs()
            apart = (found["ours"] - found["theirs"]).norm() / found["theirs"].norm()
            if apart > 0.05:  # unstructured they cut one weight more a block
                raise SystemExit(f"{layer}: the weights are {apart:.1%} apart.")
            mine, peer, ratio = alternate(ours, theirs, ROUNDS)
            total = [total[0] + mine, total[1] + peer]
            print(f"   {name:13} {layer:11} {mine:.3f} s / {peer:.3f} s = {ratio:.2f}")
        print(
            f"8. {name}: ours {total[0]:.3f} s / llmcompressor {total[1]:.3f} s = "
            f"{total[0] / total[1]:.2f} (wanted: at most 1)"
        )


if __name__ == "__main__":
    main()
