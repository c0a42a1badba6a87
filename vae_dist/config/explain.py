"""pydantic's errors as sentences that name keys as they are written in a config."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vae_dist.config.fields import fields_below, kinds_below
from vae_dist.config.section import Kinds, Section, sections_in
from vae_dist.printable import printable, quoted

LONGEST_KEY = 100  # characters that are shown
MOST_MISTAKES = 10  # that are explained


class Place(NamedTuple):
    """The place of an error in a config."""

    keys: list[str]  # that lead there, as they are written
    section: type[Section]  # that the last key is in
    kind: str  # of that section, such as "model.kind mlp"; empty if it comes in one kind only
    kinds: Mapping[str, type[Section]]  # that the section could be, by name


def explain_all(error: ValidationError, root: type[Section]) -> list[str]:
    """Put the errors in a config of class `root` into sentences: the first few, and how many more there are."""
    details = error.errors(include_url=False)
    sentences = [explain(detail, root) for detail in details[:MOST_MISTAKES]]
    more = len(details) - len(sentences)
    return [*sentences, f"{more:,} more mistakes."] if more else sentences


def explain(error: ErrorDetails, root: type[Section]) -> str:
    """Put an error in a config of class `root` into a sentence, which names the nearest right key or kind."""
    place = _locate(error["loc"], root)
    key = printable(".".join(place.keys), LONGEST_KEY) or "config"
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key {key}{_instead(place, root)}"
        case "union_tag_invalid":
            choice = error["ctx"]["discriminator"].strip("'")
            return _wrong_kind(f"{key}.{choice}", error["input"][choice], list(kinds_below(root)[key]))
        case "model_attributes_type":  # neither a word nor a mapping
            return _wrong_kind(key, error["input"], list(kinds_below(root)[key]))
        case "value_error":
            return error["msg"].removeprefix("Value error, ") + "."
        case _:
            message = error["msg"].replace("Input should", "it should")
            return f"{key} is {quoted(error['input'])}: {message}."


def _locate(location: Sequence[int | str], root: type[Section]) -> Place:
    """Follow pydantic's location, in which a section that comes in kinds is followed by the name of its kind."""
    place = Place([], root, "", {})
    parts = [str(part) for part in location]
    while parts:
        place.keys.append(parts.pop(0))
        field = place.section.model_fields.get(place.keys[-1])
        if not parts or field is None or not sections_in(field):
            break  # what may follow are parts of a value
        if mark := Kinds.of(field):
            name, kinds = parts.pop(0), mark.members(field)
            place = Place(place.keys, kinds[name], f"{'.'.join(place.keys)}.{mark.key} {name}", kinds)
        else:
            place = Place(place.keys, sections_in(field)[0], "", {})
    return place


def _wrong_kind(key: str, value: Any, kinds: Sequence[str]) -> str:
    close = difflib.get_close_matches(quoted(value).strip("'"), kinds, n=1)
    hint = f": did you mean {close[0]}?" if close else "."
    return f"{key} is {quoted(value)}; it should be {_listed(kinds, 'or')}{hint}"


def _instead(place: Place, root: type[Section]) -> str:
    """Return what could be meant by an unknown key: another kind's, one with a similar name, or one elsewhere."""
    *above, name = place.keys
    if len(name) > LONGEST_KEY:
        return "."
    if others := [kind for kind, section in place.kinds.items() if name in section.model_fields]:
        return f": {place.kind} has no {name}, but {_listed(others, 'and')} {'have' if len(others) > 1 else 'has'}."
    known = list(place.section.model_fields)
    similar = difflib.get_close_matches(name, known, n=1) or [key for key in known if key.startswith(name)]
    if similar:
        return f"; did you mean {'.'.join([*above, similar[0]])}?"
    if elsewhere := _elsewhere(place.keys, root):
        return f"; did you mean {elsewhere}?"
    return f"; known here are {', '.join(known)}."


def _elsewhere(keys: Iterable[str], root: type[Section]) -> str | None:
    """Return the key of that name in any section, or else the one most like it from its first part to its last."""
    *_, name = keys
    known = list(dict.fromkeys(key for key, _ in fields_below(root)))
    same = [key for key in known if key.split(".")[-1] == name]
    similar = same or difflib.get_close_matches(".".join(keys), known, n=1, cutoff=0.75)
    return similar[0] if similar else None


def _listed(names: Sequence[str], conjunction: str) -> str:
    """Write "a", "a or b" or "a, b or c"."""
    *first, last = names
    return f"{', '.join(first)} {conjunction} {last}" if first else last
