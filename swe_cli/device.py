"""The device, precision and thread count that a run computes with."""

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from swe_cli.errors import UsageError
from swe_cli.records import Batch


@dataclass(frozen=True)
class Machine:
    """``dtype``, float32 or bfloat16: of matrix products; weights and statistics stay float32."""

    device: torch.device
    dtype: str
    threads: int

    def move(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def precision(self) -> AbstractContextManager[None]:
        """Autocast of the forward pass, or nothing for float32."""
        enabled = self.dtype == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def identity(self) -> dict[str, str | int]:
        """What of the machine changes the bits of a result. Another GPU index does not."""
        return {"device": self.device.type, "dtype": self.dtype, "threads": self.threads}


def resolve(device: str, dtype: str, threads: int | None) -> Machine:
    """The machine asked for: ``device`` is auto, cpu, cuda, cuda:1, mps; ``threads`` null is all.

    Also sets torch's thread count. Raises UsageError for a device that is absent.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        chosen = torch.device(device if device != "auto" else "cuda" if gpus else "cpu")
    except RuntimeError:
        raise UsageError(f"device={device!r} is not a device.", "Try cpu, cuda or auto.") from None
    mps = chosen.type == "mps" and torch.backends.mps.is_available()
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # of torchrun, which share this machine
    if str(chosen) == "cuda" and ranks > 1:
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    if not (chosen.type == "cpu" or mps or (chosen.type == "cuda" and (chosen.index or 0) < gpus)):
        raise UsageError(f"device={device} is not present on this machine.", "Try device=cpu.")
    count = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(max(1, count // ranks))
    return Machine(chosen, dtype, count)
