"""Where YAMLs are found: the shipped ``conf/`` and the folder a user adds."""

import sys
from dataclasses import dataclass
from pathlib import Path

from swe_cli.errors import UsageError


@dataclass(frozen=True)
class ConfigRoot:
    """The shipped ``conf/`` and, beside it, the user's own folder."""

    extra: Path | None = None

    def install(self) -> None:
        """Let the user's own package, beside the folder, be imported.

        Raises UsageError where the folder is missing, or where one of its choices has a shipped
        name: stored runs hold names only, so a name must mean one thing.
        """
        if self.extra is None:
            return
        if not self.extra.is_dir():
            raise UsageError(
                f"--config-dir {self.extra} is not a folder.",
                "Name a folder that holds GROUP/NAME.yaml.",
            )
        for path in sorted(self.extra.glob("**/*.yaml")):
            inside = path.relative_to(self.extra)
            if (shipped_conf() / inside).is_file():
                raise UsageError(
                    f"{path} has the name of a shipped choice, {inside.with_suffix('')}.",
                    "Give the file a name of its own.",
                )
        parent = str(self.extra.resolve().parent)
        if parent not in sys.path:
            sys.path.insert(0, parent)

    def folders(self) -> list[Path]:
        return [shipped_conf(), *([self.extra] if self.extra else [])]

    def groups(self) -> list[str]:
        """Names of all groups, sorted."""
        return sorted({p.parent.name for f in self.folders() for p in f.glob("*/*.yaml")})

    def options(self, group: str) -> list[str]:
        """Names one can choose in a group, sorted; none where there is no such group."""
        if not group.isidentifier():
            return []
        return sorted({p.stem for f in self.folders() for p in (f / group).glob("*.yaml")})


def shipped_conf() -> Path:
    """``conf/`` inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"
