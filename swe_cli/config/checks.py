"""Values held against annotations by pydantic, and its refusals in our words.

A bound is written where the option is, ``Annotated[int, Field(ge=1)]``. In an error its ``title``
follows the sentence as a reason, its ``description`` is what to type next.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal, TypedDict, get_type_hints

from pydantic import (
    Field,
    PydanticInvalidForJsonSchema,
    PydanticSchemaGenerationError,
    TypeAdapter,
    ValidationError,
)

from swe_cli.errors import UsageError

Adapter = TypeAdapter[Any]
MISSING = "???"  # OmegaConf's sign for a value that the user must give
EXAMPLES = {"integer": "10", "number": "0.1", "boolean": "true", "string": "TEXT"}
SLICES = "slices with more zeros than that are cut whole"
RATIO = Field(ge=0, lt=1, title="it is the fraction to cut", description="For example: ratio=0.5")


class Settings(TypedDict, total=False):
    """The plain keys of the top level: every one that some command has."""

    seed: int
    device: str
    dtype: Literal["float32", "bfloat16"]
    threads: Annotated[int, Field(ge=1, description="All of them: threads=null")] | None
    results_dir: str | None
    prunable: Literal["linear", "all"]
    roles: str
    base: Literal["final", "averaged", "best"]
    ratio: Annotated[float, RATIO] | None
    rate: Annotated[float, Field(ge=0, description="For example: rate=1.575")] | None
    fuse: (
        Annotated[float, Field(ge=0, lt=1, title=SLICES, description="The paper's: fuse=0.75")]
        | None
    )
    keep: Literal["rows", "models"]
    axes: dict[str, Any]


def adapters(hints: Mapping[str, Any]) -> dict[str, Adapter]:
    """Key → what checks its value; a class of the user's own is checked by their own code."""
    checking: dict[str, Adapter] = {}
    for key, hint in hints.items():
        try:
            checking[key] = TypeAdapter(hint)
        except PydanticSchemaGenerationError:
            checking[key] = TypeAdapter(Any)
    return checking


SETTINGS = adapters(get_type_hints(Settings, include_extras=True))


def check(key: str, adapter: Adapter, value: Any) -> Any:
    """``value`` where it is of the type and within the bounds; of conversions, int to float only.

    Raises UsageError with one sentence about ``key``.
    """
    if value == MISSING:
        raise UsageError(f"{key} is needed.", f"Add {key}=…")
    try:
        checked = adapter.validate_python(value, strict=True)
    except ValidationError as error:
        raise _refusal(key, adapter, value, error) from None
    if isinstance(checked, float) and not math.isfinite(checked):
        raise UsageError(f"{key}={checked} is not a finite number.", f"Write {key}=0.1")
    return checked


def as_typed(value: Any) -> str:
    """A value as one types it."""
    plain = {None: "null", True: "true", False: "false"}
    return plain[value] if value is None or isinstance(value, bool) else str(value)


def _refusal(key: str, adapter: Adapter, value: Any, error: ValidationError) -> UsageError:
    problems, choices = error.errors(), _alternatives(adapter)
    kinds = {problem["type"] for problem in problems}
    bounded = next((one for one in choices if _bound(one)), {})
    if kinds & {"greater_than", "greater_than_equal", "less_than", "less_than_equal"} and bounded:
        if isinstance(value, float) and not math.isfinite(value):
            return UsageError(f"{key}={value} is not a finite number.", f"Write {key}=0.1")
        reason, hint = bounded.get("title"), bounded.get("description")
        others = [as_typed(one.get("const")) for one in choices if one is not bounded]
        tail = f": {reason}" if reason else f", or {others[0]}" if others and not hint else ""
        return UsageError(f"{key}={as_typed(value)} {_bound(bounded)}{tail}.", hint)
    expected = " or ".join(dict.fromkeys(_expected(problem["msg"]) for problem in problems))
    if isinstance(value, str) and kinds & {"int_type", "float_type"}:
        with suppress(ValueError):
            float(value)
            quoted = f'{key}="{value}" is quoted, so it is text: it should be {expected}.'
            return UsageError(quoted, f"Write {key}={value}")
    free = [choice.get("type") for choice in choices if not choice.keys() & {"enum", "const"}]
    example = next((EXAMPLES[kind] for kind in free if kind in EXAMPLES), None)
    return UsageError(
        f"{key}={as_typed(value)} is wrong: it should be {expected}.",
        f"Write {key}={example}" if example else None,
    )


def _alternatives(adapter: Adapter) -> list[dict[str, Any]]:
    """JSON schemas of what a value may be."""
    try:
        schema = adapter.json_schema()
    except PydanticInvalidForJsonSchema:  # something to be called, for one
        return []
    alternatives: list[dict[str, Any]] = schema.get("anyOf", [schema])
    return alternatives


def _bound(schema: Mapping[str, Any]) -> str | None:
    """What a JSON schema bounds, said of a value that is beyond."""
    match schema:
        case {"minimum": low, "exclusiveMaximum": high}:
            return f"is not in [{low:g}, {high:g})"
        case {"minimum": low, "maximum": high}:
            return f"is not in [{low:g}, {high:g}]"
        case {"exclusiveMinimum": low, "exclusiveMaximum": high}:
            return f"is not between {low:g} and {high:g}"
        case {"exclusiveMinimum": low, "maximum": high}:
            return f"is not in ({low:g}, {high:g}]"
        case {"minimum": low}:
            return f"must be at least {low:g}" if low else "must not be negative"
        case {"exclusiveMinimum": 0}:
            return "must be positive"
    return None


def _expected(message: str) -> str:
    """Pydantic's words for a type, after "it should be"."""
    plain = message.removeprefix("Input should be ").replace("a valid ", "a ")
    return plain.replace("a integer", "an integer").replace("a boolean", "true or false")
