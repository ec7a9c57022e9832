"""Values held against annotations by pydantic, and its refusals in our words.

A bound is written where the option is, ``Annotated[int, Field(ge=1)]``. In an error its ``title``
follows the sentence as a reason, its ``description`` is what to type next.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal, TypedDict, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError
from pydantic import PydanticInvalidForJsonSchema as NoSchema
from pydantic import PydanticSchemaGenerationError as NotChecked

from swe_cli.errors import UsageError

Adapter = TypeAdapter[Any]
MISSING = "???"  # OmegaConf's sign for a value that the user must give
EXAMPLES = {"integer": "10", "number": "0.1", "boolean": "true", "string": "TEXT"}
TYPES = (("a valid ", "a "), ("a integer", "an integer"), ("a boolean", "true or false"))
RATIO = Field(ge=0, lt=1, title="it is the fraction to cut", description="For example: ratio=0.5")
SLICES = "slices with more zeros than that are cut whole"
FUSE = Field(ge=0, lt=1, title=SLICES, description="The paper's: fuse=0.75")


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
    fuse: Annotated[float, FUSE] | None
    keep: Literal["rows", "models"]
    axes: dict[str, Any]


def adapters(hints: Mapping[str, Any]) -> dict[str, Adapter]:
    """Key → what checks its value; a class of the user's own is checked by their own code."""
    checking: dict[str, Adapter] = {}
    for key, hint in hints.items():
        try:
            checking[key] = TypeAdapter(hint)
        except NotChecked:
            checking[key] = TypeAdapter(Any)
    return checking


SETTINGS = adapters(get_type_hints(Settings, include_extras=True))


def check(key: str, adapter: Adapter, value: Any) -> Any:
    """``value`` where it is of the type and within the bounds; of conversions, int to float only.

    Raises UsageError with one sentence about ``key``.
    """
    if value == MISSING:
        raise UsageError(f"{key} is needed.", f"Add {key}=…")
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{key}={value} is not a finite number.", f"Write {key}=0.1")
    try:
        return adapter.validate_python(value, strict=True)
    except ValidationError as error:
        raise _refusal(key, adapter, value, error) from None


def as_typed(value: Any) -> str:
    """A value as one types it."""
    plain = {None: "null", True: "true", False: "false"}
    return plain[value] if value is None or isinstance(value, bool) else str(value)


def _refusal(key: str, adapter: Adapter, value: Any, error: ValidationError) -> UsageError:
    problems, choices = error.errors(), _alternatives(adapter)
    bounded = next((one for one in choices if _bound(one)), None)
    if bounded and any(one["type"].startswith(("greater_", "less_")) for one in problems):
        reason, hint = bounded.get("title"), bounded.get("description")
        others = [as_typed(one.get("const")) for one in choices if one is not bounded]
        tail = f": {reason}" if reason else f", or {others[0]}" if others and not hint else ""
        return UsageError(f"{key}={as_typed(value)} {_bound(bounded)}{tail}.", hint)
    messages = [one["msg"].removeprefix("Input should be ") for one in problems]
    expected = " or ".join(dict.fromkeys(messages))
    for theirs, ours in TYPES:
        expected = expected.replace(theirs, ours)
    if isinstance(value, str) and any(
        one["type"] in ("int_type", "float_type") for one in problems
    ):
        with suppress(ValueError):
            float(value)
            quoted = f'{key}="{value}" is quoted, so it is text: it should be {expected}.'
            return UsageError(quoted, f"Write {key}={value}")
    free = [choice.get("type") for choice in choices if not choice.keys() & {"enum", "const"}]
    example = next((f"Write {key}={EXAMPLES[kind]}" for kind in free if kind in EXAMPLES), None)
    return UsageError(f"{key}={as_typed(value)} is wrong: it should be {expected}.", example)


def _alternatives(adapter: Adapter) -> list[dict[str, Any]]:
    """JSON schemas of what a value may be."""
    try:
        schema = adapter.json_schema()
    except NoSchema:  # something to be called, for one
        return []
    alternatives: list[dict[str, Any]] = schema.get("anyOf", [schema])
    return alternatives


def _bound(schema: Mapping[str, Any]) -> str | None:
    """What a JSON schema bounds from below, said of a value that is beyond."""
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None:
        return None
    if high is not None:
        opening, closing = "[" if "minimum" in schema else "(", "]" if "maximum" in schema else ")"
        return f"is not in {opening}{low:g}, {high:g}{closing}"
    if "minimum" in schema:
        return f"must be at least {low:g}" if low else "must not be negative"
    return f"must be greater than {low:g}" if low else "must be positive"
