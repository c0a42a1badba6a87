"""Figures as JSON that every reader takes: the standard has neither NaN nor infinity."""

import json
import math
from collections.abc import Mapping
from typing import Any

NOT_FINITE = "not_finite"


def to_json(values: Mapping[str, Any], indent: int | None = None) -> str:
    """Return figures as strict JSON: null for what is not finite, and under `not_finite` what it was.

    `{"loss": nan}` is written as `{"loss": null, "not_finite": {"loss": "nan"}}`; a list is there with all its numbers.
    """
    words = {name: word for name, value in values.items() if (word := _word(value)) is not None}
    content = {name: _finite(value) for name, value in values.items()}
    return json.dumps(content | ({NOT_FINITE: words} if words else {}), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if _is_not_finite(value) else value


def _word(value: Any) -> Any:
    """Return "nan", "inf" or "-inf"; for a list that holds one of them, every item; None where all is finite."""
    if isinstance(value, list | tuple):
        return [str(item) for item in value] if any(map(_is_not_finite, value)) else None
    return str(value) if _is_not_finite(value) else None


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
