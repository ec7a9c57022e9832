"""A plain torch model cut in Python, by the weights and by how they lived."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from swe_cli.config import ConfigRoot, component
from swe_cli.conform import conform
from swe_cli.contracts import Allocation, Evidence, Setup, criterion_of
from swe_cli.device import resolve
from swe_cli.errors import UsageError
from swe_cli.pruning.masks import apply_masks
from swe_cli.pruning.prune import Judge, Method, Scorer, check_evidence, recorded_needs
from swe_cli.pruning.prune import prune as cut
from swe_cli.records import Masks, Tensors
from swe_cli.training.own_loop import WeightTracker, bare

MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def prune(
    model: nn.Module,
    tracker: WeightTracker | None = None,
    *,
    ratio: float,
    criterion: str = "swe",
    allocation: str = "global",
    seed: int = 0,
    config_dir: Path | None = None,
    **options: Any,
) -> Masks:
    """Zero, in place, a fraction ``ratio`` of the weights of all linear layers and convolutions.

    By any criterion that needs no calibration set; one that judges by the trajectory takes it from
    the ``tracker`` of the training. ``options``: of the criterion. Gives the masks, True = kept, by
    parameter name: multiply by them after each step, to train on. Raises UsageError for what cannot
    be, PruningError for scores that cannot be ranked.
    """
    root = ConfigRoot(config_dir)
    judge = criterion_of(component("criterion", criterion, root, options).build(), criterion)
    needs = recorded_needs(judge.needs)
    if judge.granularity == "mask":
        raise UsageError(f"criterion={criterion} finds its own sparsity.", "Prune by it: swe prune")
    if len(needs) < len(judge.needs):
        raise UsageError(f"criterion={criterion} looks at data.", "Prune by it: swe prune")
    known = tracker.statistics if tracker else {}
    if lacking := [need for need in needs if need not in known]:
        hint = f"WeightTracker(model, optimizer, statistics={[*known, *lacking]})"
        raise UsageError(f"criterion={criterion} needs a tracker of {', '.join(lacking)}.", hint)
    if needs and tracker and not tracker.count:
        raise UsageError("The tracker has seen no step.", "Prune when training has ended.")
    if not 0 <= ratio < 1:
        raise UsageError(f"ratio={ratio} is not in [0, 1).", "It is the fraction to cut: ratio=0.5")
    named = {bare(f"{n}.weight"): m for n, m in model.named_modules()}
    layers = {name for name, module in named.items() if isinstance(module, MATRICES)}

    def lens(tensors: Mapping[str, Tensor]) -> Tensors:
        return {name: tensor for name, tensor in tensors.items() if name in layers}

    lived = {need: lens({n: t.cpu() for n, t in known[need].state().items()}) for need in needs}
    live = lens({bare(name): p.detach() for name, p in model.named_parameters()})
    weights = {name: weight.float().cpu() for name, weight in live.items()}
    seen = tracker.live() if tracker else live
    if any(name not in seen or not torch.equal(seen[name], live[name].float()) for name in live):
        raise UsageError("The tracker is of another model.", "Give that of this model's training.")
    shares = conform(component("allocation", allocation, root).build(), Allocation, allocation)
    if meant := shares.stands_for(judge):
        shares = conform(component("allocation", meant, root).build(), Allocation, meant)
    if shares.consults or shares.probes:
        why = f"allocation={allocation} asks more than the scores it shares out by."
        raise UsageError(why, "Prune by it: swe prune. Or: allocation='uniform'")
    judged: Any = SimpleNamespace(named_modules=model.named_modules, blocks=lambda: ())
    setup = Setup(judged, None, resolve("cpu", "float32", None), seed)  # type: ignore[arg-type]
    scorer = Scorer(setup, lens, Evidence(weights, lived, seed))
    by, told = Judge(judge, criterion, criterion), tracker.info() if tracker else {}
    check_evidence(by, scorer.evidence, "the tracker", None, told.get("as_received", ()))
    masks = cut(Method(by, ratio, allocation=shares), scorer)
    apply_masks(masks, live)
    return masks
