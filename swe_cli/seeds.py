"""Randomness as a function of (seed, name, step), so that nothing random needs saving to resume."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, name: str, step: int = 0) -> int:
    """A 63-bit seed of its own for every use of randomness: batches, dropout, masks, resamples."""
    digest = hashlib.sha256(f"{seed}/{name}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def global_randomness(
    seed: int, name: str, step: int = 0, device: torch.device | None = None
) -> Iterator[None]:
    """Seed torch's global generators for what takes no generator (init, dropout); restore after.

    ``device``: where the draws happen, besides the CPU.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive(seed, name, step))
        yield
