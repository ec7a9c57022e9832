"""The trajectory of a training whose loop is somebody else's."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from swe_cli.config import ConfigRoot, component, source_of
from swe_cli.conform import conform
from swe_cli.contracts import Statistic
from swe_cli.errors import ModelError, UsageError
from swe_cli.files import read_json, read_tensors, write_json, write_tensors
from swe_cli.records import Tensors
from swe_cli.training.parallel import local
from swe_cli.training.state import slots_of
from swe_cli.training.tracker import Tracker, Tracking, probed, trajectory_of

TRAJECTORY, TOLD = "trajectory.safetensors", "trajectory.json"
# Of DDP, torch.compile and peft.
WRAPPERS = re.compile(r"^((module|_orig_mod|base_model\.model)\.)+|(?<=\.)(_orig_mod|base_layer)\.")
SAVED = (torch.float32, torch.bfloat16, torch.float16)  # as which the model may have been
FEW = 16  # weights of each tensor by which a trajectory is told from another's


class WeightTracker(Tracker):
    """Statistics of every weight of ``model``, seen after each step of ``optimizer``.

    Make it before the first step, then train as you do; ``save`` leaves what ``swe prune
    model=huggingface model.path=… trajectory=FOLDER`` takes. Accumulators are float32 whatever the
    model is. It sees optimizer steps, not batches: gradients may be accumulated. A step that a
    ``GradScaler`` skips is none. Of LoRA (peft) it follows the merged weights, W₀ + ΔW.

    ``statistics``: names of the group, as in ``swe_cli/statistics``. ``steps``: how long the run
    will be, for those that must know. ``config_dir``: a folder of YAMLs of one's own. The rest are
    options of ``tracking``: every, start, weighting, decay.

    Gradients are those that the optimizer receives, unless ``before_clip()`` is called in the loop,
    between the backward pass and clipping.

    Raises UsageError for options that cannot be.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any,
        *,
        statistics: Sequence[str] = ("weighted_average",),
        steps: int | None = None,
        config_dir: Path | None = None,
        **tracking: Any,
    ) -> None:
        while hasattr(optimizer, "optimizer"):  # of accelerate, of Lightning
            optimizer = optimizer.optimizer
        root = ConfigRoot(config_dir)
        self.model, self.optimizer, self.clipped = model, optimizer, False
        self.step, self._shown = 0, Tensors()  # steps taken; gradients before they were clipped
        options = {"sample": 0, "frozen": True, **tracking}
        chosen: Tracking = component("tracking", "every_step", root, options).instance
        if chosen.every == "epoch":
            raise UsageError("Only the loop knows how long an epoch is.", "Give every=STEPS")
        if steps is None and (isinstance(chosen.start, str) or isinstance(chosen.decay, str)):
            raise UsageError("A part of a run is known where its length is.", "Give steps=…")
        weights, made, sources = self.live(), dict[str, Statistic](), {}
        for name in statistics:
            of = component("statistic", name, root)
            made[name] = conform(of.build(weights), Statistic, f"statistic={name}")
            sources[name] = source_of(of)
            if steps is None and type(made[name]).expect is not Statistic.expect:
                why = f"statistic={name} must know how long the run is."
                raise UsageError(why, "Give WeightTracker its steps=…")
            merged = weights.keys() - self._parameters().keys()
            if merged and (made[name].sees("before_step") or made[name].sees("after_step")):
                why = f"statistic={name} looks at gradients, and merged weights of LoRA have none."
                raise UsageError(why, "Track what is of the weights: weighted_average, mean, …")
        length = sys.maxsize if steps is None else steps
        about: dict[str, Any] = {"steps": length, "steps_per_epoch": 1, "seed": 0}
        super().__init__({}, made, {}, chosen, **about, sources=sources)
        before = optimizer.register_step_pre_hook(lambda *_: self._before())
        self._hooks = [before, optimizer.register_step_post_hook(lambda *_: self._after())]

    # What it sees

    def live(self) -> Tensors:
        """The weights as they are, float32, by their names in the bare model; of shards ours."""
        merged = dict(self._merged())
        plain = {n: p.detach() for n, p in self._parameters().items()}
        if merged:
            plain = {n: p for n, p in plain.items() if ".lora_" not in n}
        return {name: local(weight).float() for name, weight in {**plain, **merged}.items()}

    def _parameters(self) -> dict[str, nn.Parameter]:
        return {bare(name): p for name, p in self.model.named_parameters()}

    def _merged(self) -> Iterator[tuple[str, Tensor]]:
        for name, module in self.model.named_modules():
            if hasattr(module, "get_delta_weight") and not getattr(module, "merged", False):
                weight = module.base_layer.weight.detach()
                for adapter in module.active_adapters:
                    weight = weight + module.get_delta_weight(adapter).detach()
                yield bare(f"{name}.weight"), weight

    def before_clip(self) -> None:
        """Copy the gradients, before clipping (and after ``unscale_``), for the step that comes."""
        if any(of.sees("before_step") for of in self.statistics.values()):
            self._shown = {name: g.clone() for name, g in self._gradients().items()}

    def _before(self) -> None:
        shown, self._shown = self._shown, {}
        if not self._skipped():
            self.clipped |= not shown  # perhaps
            self.see(self.step + 1, lambda: shown or self._gradients())

    def _after(self) -> None:
        if not self._skipped():
            self.step += 1
            self.observe(self.step, lambda: slots_of(self.optimizer, self._parameters()))

    def _skipped(self) -> bool:
        """Whether a scaler told the optimizer, inside its step, to leave everything as it is."""
        found = getattr(self.optimizer, "found_inf", None)
        return found is not None and bool(found)

    def _gradients(self) -> Tensors:
        """In units of the loss: what a scaler leaves to a fused optimizer is done here, too."""
        scale = getattr(self.optimizer, "grad_scale", None)
        found = {n: local(p.grad) for n, p in self._parameters().items() if p.grad is not None}
        return {n: g.float() if scale is None else g.float() / scale for n, g in found.items()}

    # What it keeps

    def state_dict(self) -> dict[str, Any]:
        """All that it needs to go on, bit for bit."""
        told = {"info": self.info(), "step": self.step, "begun": self.begun}
        return {"tensors": self.tensors(), **told}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self.load(state["tensors"], state["info"])
        self.step, self.begun, self._shown = state["step"], state["begun"], {}
        self.clipped = bool(state["info"]["as_received"])

    def info(self) -> dict[str, Any]:
        received = [n for n, of in self.statistics.items() if of.sees("before_step")]
        return {**super().info(), "as_received": received if self.clipped else []}

    def save(self, folder: Path | str) -> None:
        """Write the trajectory, and by what the weights that it led to are known."""
        folder = Path(folder)
        probes = {f"probe/{name}": few for name, few in probed(self.live(), FEW).items()}
        write_tensors(folder / TRAJECTORY, self.tensors() | probes)
        write_json(folder / TOLD, self.info())

    def close(self) -> None:
        """Look on no longer."""
        for hook in self._hooks:
            hook.remove()


def bare(name: str) -> str:
    """A name without what wrappers put before it."""
    return WRAPPERS.sub("", name)


# Read back


def told_of(folder: Path) -> dict[str, Any]:
    """What a trajectory tells of itself. ModelError where ``save`` left nothing."""
    if not (folder / TOLD).is_file():
        raise ModelError(f"{folder} holds no {TOLD}.", "WeightTracker.save(FOLDER) makes it.")
    told: dict[str, Any] = read_json(folder / TOLD, "statistics", "weights_moved")
    return told


def read_trajectory(folder: Path, weights: Tensors, prefix: str) -> tuple[Tensors, dict[str, Any]]:
    """What ``save`` left, by the names of ``weights``, which are those it led to, ``prefix`` and
    all; and what it tells of itself. ModelError where it is another model's, or of other weights.
    """
    told = told_of(folder)
    if not told["count"]:
        raise ModelError(f"{folder} saw no step.", "Save it when training ends.")
    read = ((key.partition("/"), t) for key, t in read_tensors(folder / TRAJECTORY).items())
    saved = {f"{of}/{prefix}{name}": tensor for (of, _, name), tensor in read}
    probes = trajectory_of(saved, ["probe"])["probe"]
    if probes.keys() != weights.keys():
        other = min(probes.keys() ^ weights.keys()).removeprefix(prefix)
        raise ModelError(f"{folder} is the trajectory of another model: it differs in {other}.")
    for name, now in probed(weights, FEW).items():
        same = (torch.equal(now, probes[name].to(dtype).float()) for dtype in SAVED)
        if not any(same):
            why = f"The trajectory in {folder} did not lead to these weights: not in {name}."
            raise ModelError(why, "Save it when training ends, beside the model.")
    return {name: t for name, t in saved.items() if not name.startswith("probe/")}, told


def merge_lora(model: Any) -> Any:
    """The network of a LoRA model (peft), its adapters merged. What was zero in a matrix that they
    lie beside stays zero: merged as they are, they fill what was cut. While it trained, they did:
    measure it after this.
    """
    beside = [m.base_layer for m in model.modules() if hasattr(m, "get_delta_weight")]
    kept = [(layer.weight, layer.weight != 0) for layer in beside]
    merged = model.merge_and_unload()
    for weight, mask in kept:
        weight.data.mul_(mask)
    return merged
