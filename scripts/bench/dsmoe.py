"""Bench 11: what blocks that are left out save, beside what routing costs.

    OMP_NUM_THREADS=1 python scripts/bench/dsmoe.py

A GPT's MLP of width 384 and of 128, eight blocks, each token's own half of them active: dense
against the masked path of training, and against the path that skips. 1,024 tokens, no gradients.
Wanted: skipping takes less time than dense at width 384.
"""

import torch
from common import alternate
from torch.nn import functional as F

from swe_cli.models.transformer import ACTIVATIONS, MLP, GatedMLP

TOKENS, BLOCKS, ROUNDS = 1024, 8, 41


def active_only(mlp: GatedMLP, x: torch.Tensor) -> torch.Tensor:
    """Of tokens (T, C), block by block, those that a predicted router has it on for."""
    out, size = x.new_zeros(x.shape), mlp.expand.out_features // mlp.blocks
    for block, gate in enumerate(mlp.gates(x).T):
        on, of = gate.nonzero()[:, 0], slice(block * size, (block + 1) * size)
        hidden = ACTIVATIONS[mlp.activation](F.linear(x[on], mlp.expand.weight[of]))
        out.index_add_(0, on, F.linear(hidden * gate[on, None], mlp.contract.weight[:, of]))
    return out


@torch.inference_mode()
def main() -> None:
    for width in (384, 128):
        torch.manual_seed(0)
        gated = GatedMLP("predicted", BLOCKS, width, dropout=0.0, activation="gelu", bias=False)
        dense = MLP(width, 0.0, "gelu", bias=False)
        dense.load_state_dict({n: t for n, t in gated.state_dict().items() if "router" not in n})
        x = torch.randn(TOKENS, width)
        torch.nn.init.zeros_(gated.router["predicted"].bias)  # half of a drawn router's are on
        active = float((gated.gates(x) > 0).float().mean())
        masked = gated(x)
        _, _, whole = alternate(lambda m=gated, x=x: m(x), lambda m=dense, x=x: m(x), ROUNDS)
        torch.testing.assert_close(active_only(gated, x), masked, rtol=1e-5, atol=1e-5)
        part, all_of_it, ratio = alternate(
            lambda m=gated, x=x: active_only(m, x), lambda m=dense, x=x: m(x), ROUNDS
        )
        print(
            f"11. width {width}, {active:.0%} active: skipping {1e3 * part:.2f} ms / dense "
            f"{1e3 * all_of_it:.2f} ms = {ratio:.2f}; masked / dense = {whole:.2f}"
        )


if __name__ == "__main__":
    print(f"{TOKENS} tokens, {BLOCKS} blocks, {torch.get_num_threads()} threads")
    main()
