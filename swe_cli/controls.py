"""The models that nothing was cut from, which every cut is judged by. One entry, one control."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Control:
    """``base``: whose weights. ``recovered``: trained on as long as a cut is, on the same batches.

    ``blind``: every image is replaced by another: what is left is what questions alone give away.
    ``asked``: there only where ``controls=[…]`` names it. ``training``: options of the recipe by
    which it is trained anew, where it is no weights of the training that is cut.
    ``dash``: strokes and gaps in figures, in pixels; solid by default.
    """

    kind: str
    words: str
    base: str = "final"
    recovered: bool = False
    blind: bool = False
    asked: bool = False
    training: Mapping[str, Any] = field(default_factory=dict, hash=False)
    dash: tuple[float, ...] = (1, 0)


PRUNED = "pruned"  # the kind of a row that is no control
DECAYED = {"schedule": "linear_average", "warmup_steps": 0}  # W̄, where the rate is constant
DENSE = Control("dense", "dense")
RECOVERED = Control("dense_recovered", "dense recovered", recovered=True, dash=(1, 2))
CONTROLS = (
    DENSE,
    Control("dense_best", "dense best", base="best", dash=(8, 2, 1, 2)),
    RECOVERED,
    Control("dense_averaged", "dense averaged", base="averaged", dash=(10, 3)),
    Control(
        "dense_averaged_recovered",
        "averaged recovered",
        base="averaged",
        recovered=True,
        asked=True,
        dash=(10, 3, 1, 3),
    ),
    Control("dense_latest", "dense latest", base="latest", asked=True, dash=(5, 2)),
    Control("dense_ema", "dense EMA", base="ema", asked=True, dash=(2, 2)),
    Control("dense_decayed", "dense decayed", asked=True, training=DECAYED, dash=(14, 2, 2, 2)),
    Control("dense_blind", "dense, images shuffled", blind=True, dash=(4, 1, 1, 1, 1, 1)),
)
ASKED = tuple(control.kind for control in CONTROLS if control.asked)
BY_KIND = {control.kind: control for control in CONTROLS}
KINDS = (*BY_KIND, PRUNED)  # in the order of every table
KIND_NAMES = {kind: control.words for kind, control in BY_KIND.items()} | {PRUNED: PRUNED}


def controls_of(
    bases: Collection[str], *, questions: bool, asked: Collection[str] = ()
) -> list[Control]:
    """The controls that there can be with weights of these ``bases``; some if ``asked`` for."""
    there = [c for c in CONTROLS if c.base in bases and (questions or not c.blind)]
    return [control for control in there if not control.asked or control.kind in asked]
