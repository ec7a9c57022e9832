"""Bench 13: what tracking costs in a loop of one's own.

    OMP_NUM_THREADS=2 python scripts/bench/own_loop.py FOLDER [rows] [tokens]

A model of transformers (scripts/make_smollm2 makes one) is trained on rows × tokens of noise, by
default 8 × 256, with a fused AdamW; CPU time of a step, and of what WeightTracker does after it.
Wanted: the average alone takes at most 1 % of a step of SmolLM2-135M.
"""

import statistics
import sys
import time

import torch
from common import seconds
from transformers import AutoModelForCausalLM

from swe_cli import WeightTracker

ROUNDS = 5
TRACKED = {
    "the average alone": ["weighted_average"],
    "and the square gradient": ["weighted_average", "square_gradient"],
}


def main() -> None:
    folder, rows, tokens = [*sys.argv[1:], "8", "256"][:3]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    x = torch.randint(model.config.vocab_size, (int(rows), int(tokens)))

    def step() -> None:
        model(input_ids=x, labels=x).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    plain = statistics.median(seconds(step, time.process_time) for _ in range(ROUNDS))
    print(f"{model.num_parameters():,} parameters, {rows} × {tokens} tokens: {plain:.2f} s a step")
    for words, names in TRACKED.items():
        tracker = WeightTracker(model, optimizer, statistics=names)
        tracker.close()  # what its hooks would do is timed here
        model(input_ids=x[:1], labels=x[:1]).loss.backward()
        taken = [
            seconds(lambda of=tracker: (of._before(), of._after()), time.process_time)
            for _ in range(ROUNDS)
        ]
        share = statistics.median(taken) / plain
        print(f"13. {words}: {1e3 * statistics.median(taken):.0f} ms = {share:.2%}")


if __name__ == "__main__":
    main()
