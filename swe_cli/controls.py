"""The models that nothing was cut from, which every cut is judged by. One entry, one control."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Control:
    """``base``: whose weights. ``recovered``: trained on as long as a cut is, on the same batches.

    ``blind``: every image is replaced by another: what is left is what questions alone give away.
    ``asked``: there only where ``controls=[…]`` names it. ``training``: options of the recipe by
    which it is trained anew, where it is no weights of the training that is cut.
    In figures: ``colour``, and ``dash``, strokes and gaps in pixels; solid where empty.
    """

    kind: str
    words: str
    base: str = "final"
    recovered: bool = False
    blind: bool = False
    asked: bool = False
    training: Mapping[str, Any] = field(default_factory=dict, hash=False)
    colour: str = "#404040"
    dash: tuple[float, ...] = ()


PRUNED = "pruned"  # the kind of a row that is no control
DENSE = Control(kind="dense", words="dense", colour="black")
RECOVERED = Control(
    kind="dense_recovered", words="dense recovered", recovered=True, colour="#737373", dash=(1, 2)
)
CONTROLS = (
    DENSE,
    Control(kind="dense_best", words="dense best", base="best", dash=(8, 2, 1, 2)),
    RECOVERED,
    Control(kind="dense_averaged", words="dense averaged", base="averaged", dash=(10, 3)),
    Control(
        kind="dense_averaged_recovered",
        words="averaged recovered",
        base="averaged",
        recovered=True,
        asked=True,
        colour="#737373",
        dash=(10, 3, 1, 3),
    ),
    Control(kind="dense_latest", words="dense latest", base="latest", asked=True, dash=(5, 2)),
    Control(kind="dense_ema", words="dense EMA", base="ema", asked=True, dash=(2, 2)),
    Control(
        kind="dense_decayed",
        words="dense decayed",
        asked=True,
        training={"schedule": "linear_average", "warmup_steps": 0},
        dash=(14, 2, 2, 2),
    ),
    Control(
        kind="dense_blind",
        words="dense, images shuffled",
        blind=True,
        colour="#999999",
        dash=(4, 1, 1, 1, 1, 1),
    ),
)
ASKED = tuple(control.kind for control in CONTROLS if control.asked)
BY_KIND = {control.kind: control for control in CONTROLS}
KINDS = (*BY_KIND, PRUNED)  # in the order of every table
KIND_NAMES = {kind: control.words for kind, control in BY_KIND.items()} | {PRUNED: PRUNED}


def controls_of(
    bases: Collection[str], *, questions: bool, asked: Collection[str] = ()
) -> list[Control]:
    """The controls that there can be of a model with weights of these ``bases``, those among them
    that are ``asked`` for.
    """
    there = [c for c in CONTROLS if c.base in bases and (questions or not c.blind)]
    return [control for control in there if not control.asked or control.kind in asked]
