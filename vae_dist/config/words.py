"""The values that a key takes, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from vae_dist.config.aliases import listed
from vae_dist.config.section import LARGEST


def in_words(schema: Mapping[str, Any]) -> str:
    """Write the type of a JSON schema out in words.

    Raises:
        NotImplementedError: there are no words for it yet.
    """
    match schema:
        case {"anyOf": [*options]}:
            return listed([in_words(option) for option in options])
        case {"enum": [*values]}:
            return listed([f"`{value}`" for value in values])
        case {"const": value}:
            return f"`{value}`"
        case {"prefixItems": [first, *others]}:
            return f"list of {len(others) + 1}, each a {in_words(first)}"
        case {"type": "array", "items": {"enum": [*values]}}:
            return f"list of {listed([f'`{value}`' for value in values])}"
        case {"type": "array", "items": items}:
            return f"list, each a {in_words(items)}"
        case {"type": "null"}:
            return "`null`"
        case {"type": "boolean"}:
            return "`true` or `false`"
        case {"type": "string", "format": "path"}:
            return "path"
        case {"type": "string"}:
            return "text"
        case {"type": "integer"}:  # its upper bound only catches slips of the finger
            lowest = _bounds(schema)
            return f"whole number from {lowest['minimum'] if 'minimum' in lowest else lowest['exclusiveMinimum'] + 1}"
        case {"type": "number"}:
            words = {"exclusiveMinimum": "above", "minimum": "from", "exclusiveMaximum": "below", "maximum": "up to"}
            # Of a LARGEST is nothing said: it only catches slips of the finger.
            given = [f"{words[key]} {_number(bound)}" for key, bound in _bounds(schema).items() if bound < LARGEST]
            return " ".join(["number", " and ".join(given)]).rstrip()
    raise NotImplementedError(f"There are no words for {schema} yet.")


def words_of(schema: Mapping[str, Any]) -> Sequence[str]:
    """Return the words that a JSON schema takes as a value, or in a list."""
    match schema:
        case {"anyOf": [*options]}:
            return [word for option in options for word in words_of(option)]
        case {"enum": [*values]}:
            return values
        case {"const": value}:
            return [value]
        case {"items": items}:
            return words_of(items)
        case {"type": "null"}:
            return ["null"]
        case {"type": "boolean"}:
            return ["true", "false"]
    return []


def _bounds(schema: Mapping[str, Any]) -> dict[str, float]:
    """Return a number's bounds; pydantic has names of its own for those around a validator."""
    names = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
    return {name: schema[key] for short, name in names.items() for key in (short, name) if key in schema}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:.12f}".rstrip("0").rstrip(".")
