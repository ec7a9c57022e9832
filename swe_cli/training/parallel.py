"""One model over the processes of torchrun, its ranks, each of which takes a part of every batch.

By DDP every rank has the model, and gradients are averaged. By FSDP it has some rows of each
tensor, and of its gradient and of what optimizer and statistics keep of it. The first rank alone
writes: what it writes is whole, put together tensor by tensor, and is what one process writes.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from swe_cli.contracts import IGNORED, Learner, Model
from swe_cli.errors import RunError, TrainingError, UsageError
from swe_cli.records import Batch, Tensors

Parallel = Literal["ddp", "fsdp"]
PATIENCE = timedelta(minutes=30)  # with a rank that writes, or waits for a lock
TORCHRUN = "torchrun --nproc-per-node=2 -m swe_cli train …"


@dataclass(frozen=True)
class Ranks:
    """Who trains together: ``count`` ranks, of which this is ``number``; one, unless it is said.

    ``shards``: by FSDP the parameters by name, of which each rank holds some rows. ``learner``: the
    model that DDP has wrapped.
    """

    number: int = 0
    count: int = 1
    shards: Mapping[str, Any] = field(default_factory=dict)
    learner: Learner | None = None

    @property
    def keeps(self) -> bool:
        """Whether what this rank holds is needed for what the first one writes."""
        return self.number == 0 or bool(self.shards)

    def part(self, batch: Batch) -> tuple[Batch, float]:
        """Our rows of a batch (B, …), in order. And by what to multiply their mean loss, so that
        the mean over the ranks is that over all tokens of the batch: 1.0 where all have as many.
        """
        if self.count == 1:
            return batch, 1.0
        size = len(batch["targets"]) // self.count
        rows = slice(self.number * size, (self.number + 1) * size)
        ours = {name: tensor[rows] for name, tensor in batch.items() if name != "images"}
        if "images" in batch:  # (M, …): only those that our rows are about
            seen, ours["image"] = torch.unique(ours["image"], return_inverse=True)
            ours["images"] = batch["images"][seen]
        tokens = [int((of["targets"] != IGNORED).sum()) for of in (ours, batch)]
        return ours, tokens[0] * self.count / tokens[1]

    def sum(self, value: float) -> float:
        """Over the ranks, which all wait for it."""
        total = torch.tensor(value, dtype=torch.float64)
        if self.count > 1:
            dist.all_reduce(total)
        return float(total)

    def whole(self, tensors: Tensors) -> Tensors:
        """On the first rank, and its CPU, all of what the ranks hold some rows of; none on others.

        A tensor is its parameter's by a part of its name, ``…/<parameter>/…``. Raises TrainingError
        for one that has neither its shape nor a single number.
        """
        if not self.shards:
            return tensors if self.keeps else {}
        from torch.distributed.tensor import DTensor

        found: Tensors = {}
        for key, tensor in tensors.items():
            of, ours = self._parameter(key), local(tensor)
            if of is not None and ours.shape == local(of).shape:
                laid = {"shape": of.shape, "stride": of.stride()}
                laid |= {"device_mesh": of.device_mesh, "placements": of.placements}
                ours = DTensor.from_local(ours, **laid).full_tensor()
            elif of is not None and ours.dim():
                why = f"{key} is no tensor like its parameter, and cannot be put together."
                raise TrainingError(why, "Write training.parallel=ddp")
            if not self.number:
                found[key] = ours.cpu()
        return found

    def ours(self, tensors: Tensors) -> Tensors:
        """Our rows of what ``whole`` gave."""
        return {key: local(laid_as(self._parameter(key), t)) for key, t in tensors.items()}

    def _parameter(self, key: str) -> Any:
        return next((self.shards[of] for of in key.split("/") if of in self.shards), None)


ALONE = Ranks()


@contextmanager
def joined(
    parallel: Parallel | None, batch_size: int, device: torch.device, say: Callable[[str], None]
) -> Iterator[None]:
    """Meanwhile the processes that torchrun started, if it did, can talk to each other.

    Raises UsageError where they would do the same work, or cannot share a batch; RunError for one
    that ended, or was silent for ``PATIENCE``.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1 and parallel is None:
        why = f"Each of the {count} processes that torchrun started would do the same training."
        hint = "Write training.parallel=ddp, or fsdp; of a first stage, pretraining.parallel=ddp"
        raise UsageError(why, hint)
    if batch_size % count:
        why = f"{count} processes cannot share batches of {batch_size} evenly."
        raise UsageError(why, f"Write training.batch_size={-(-batch_size // count) * count}")
    if parallel is not None and count == 1:
        say(f"training.parallel={parallel}, and this is one process. Of two: {TORCHRUN}")
    if count == 1 or dist.is_initialized():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        why = "Another process of this training ended, or was silent for too long."
        raise RunError(why, "The same command goes on from the last checkpoint.") from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def rank() -> int:
    """The number of this process among those that are joined, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def agreed(value: int) -> int:
    """What the first rank says, which all wait for: what is on disk changes meanwhile."""
    if not dist.is_initialized():
        return value
    told = torch.tensor(value)
    dist.broadcast(told, 0)
    return int(told)


def spread(model: Model, parallel: Parallel | None, device: torch.device) -> Ranks:
    """Lay a model over the ranks that are joined, in place, once all of them are here."""
    if parallel is None or not dist.is_initialized():
        return ALONE
    dist.barrier()
    number, count = dist.get_rank(), dist.get_world_size()
    if parallel == "ddp":
        from torch.nn.parallel import DistributedDataParallel

        return Ranks(number, count, {}, DistributedDataParallel(model, broadcast_buffers=False))
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (count,))
    for block in model.blocks():
        if block is not model:
            fully_shard(block, mesh=mesh)
    # The outermost, too: after a pass without a backward one it would be left whole.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    return Ranks(number, count, dict(model.named_parameters()))


def laid_as(parameter: Any, tensor: Tensor) -> Tensor:
    """A whole tensor as a parameter of its shape lies: of FSDP, as the shard of it that is ours."""
    if not hasattr(parameter, "placements") or tensor.shape != parameter.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    laid = parameter.device_mesh, parameter.placements
    ours: Tensor = distribute_tensor(tensor, *laid, src_data_rank=None)  # each has all: none sends
    return ours


def local(tensor: Any) -> Any:
    """Our shard of a tensor, or all of it where it has none."""
    return getattr(tensor, "_local_tensor", tensor)


def full(tensor: Any) -> Any:
    """All of a tensor that ranks hold together, which all of them ask for at once."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
