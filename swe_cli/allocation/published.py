"""The allocation that a criterion was published with."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    """What ``criterion.published`` names: sigma for SWE, row for Wanda, uniform for SparseGPT; else
    global.

    Rows show the allocation it stands for, and share the cells of whoever names that one.
    """

    def stands_for(self, criterion: Any) -> str:
        name: str = getattr(criterion, "published", "global")
        return name
