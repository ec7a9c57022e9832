"""A component held against its contract. A user's class need not inherit from it."""

import inspect
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from swe_cli.errors import PruningError, SweError, UsageError

T = TypeVar("T")


def conform(component: Any, contract: type[T], name: str, expected: str | None = None) -> T:
    """What a component gave as the ``contract`` it is for, with the defaults of what it lacks.

    Raises UsageError, naming the component (``name``, as one types it) and what is missing, for one
    that lacks what has no default. ``expected``: in words, if not a ``contract`` alone.
    """
    own, home = type(component), f"{contract.__module__}.{contract.__name__}"

    def refused(why: str, hint: str = f"See docs/extend.md, and {home}.") -> UsageError:
        return UsageError(f"{name} gives a {own.__name__}, which {why}.", hint)

    if issubclass(contract, nn.Module) and not isinstance(component, nn.Module):
        raise refused("is no torch.nn.Module")
    asked: list[str] = _promised(contract)  # type: ignore[arg-type]
    if missing := ", ".join(member for member in asked if not _has(component, member)):
        raise refused(f"is {expected or f'no {contract.__name__}'}: it lacks {missing}")
    if not isinstance(component, contract):
        try:
            object.__setattr__(component, "__class__", _with_defaults(own, contract))  # type: ignore[arg-type]
        except TypeError:
            why = f"cannot take the defaults of {contract.__name__}"
            raise refused(why, f"Let it inherit from {home}.") from None
    conforming: T = component
    return conforming


@contextmanager
def calling(name: str, failing: type[SweError] = PruningError) -> Iterator[None]:
    """What a component, ``name`` as one types it, raises is ``failing``, and says in which line."""
    try:
        yield
    except SweError:
        raise
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        words = " ".join(f"{type(error).__name__}: {error}".split())
        line = f"{Path(where.filename).name}, line {where.lineno}"
        raise failing(f"{name} failed ({line}): {words}.", "See docs/extend.md.") from error


@cache
def _with_defaults(own: Any, contract: Any) -> Any:
    return type(own.__name__, (own, contract), {"__module__": own.__module__})


@cache
def _promised(contract: type) -> list[str]:
    """What a contract asks for and does not give: abstract methods, annotations without a value."""
    bases = [base for base in reversed(contract.__mro__) if base not in (object, nn.Module)]
    members = dict.fromkeys(m for b in bases for m in (*inspect.get_annotations(b), *vars(b)))
    return [member for member in members if not _gives(contract, member)]


def _gives(cls: type, member: str) -> bool:
    value = getattr(cls, member, nn.Module.forward)  # which only raises
    return value is not nn.Module.forward and not getattr(value, "__isabstractmethod__", False)


def _has(component: Any, member: str) -> bool:
    if hasattr(type(component), member):  # properties are not computed
        return _gives(type(component), member) or member in vars(component)
    return hasattr(component, member)
