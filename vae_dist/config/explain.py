"""pydantic's errors as sentences that name keys as they are written in a config."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import ErrorDetails

from vae_dist.config.aliases import EPOCH, KIND, is_in_epochs, keys_called, listed, nearest
from vae_dist.config.fields import fields_below, kinds_below
from vae_dist.config.section import LARGEST, Kinds, Section, sections_in
from vae_dist.config.words import in_words, words_of
from vae_dist.printable import printable
from vae_dist.printable import quoted as quoted_in_python

OTHER_SETS = " Other sets are read as a folder of pictures: data.name=folder and data.root=FOLDER."
COUNTABLE = ("list", "number", "path", "whole number")
LONGEST_KEY = 100  # characters that are shown
MOST_MISTAKES = 10  # that are explained


class Place(NamedTuple):
    """The place of an error in a config."""

    keys: list[str]  # that lead there, as they are written
    section: type[Section]  # that the last key is in
    kind: str  # of that section, such as "model.kind mlp"; empty if it comes in one kind only
    kinds: Mapping[str, type[Section]]  # that the section could be, by name


def explain_all(error: ValidationError, explain_one: Callable[[ErrorDetails], str]) -> list[str]:
    """Put errors into sentences: the first few, each once, and how many more there are."""
    details = error.errors(include_url=False)
    sentences = list(dict.fromkeys(map(explain_one, details[:MOST_MISTAKES])))
    more = len(details) - MOST_MISTAKES
    return [*sentences, f"{more:,} more mistakes."] if more > 0 else sentences


def explain(error: ErrorDetails, root: type[Section]) -> str:
    """Put an error in a config of class `root` into a sentence, which names the nearest right key or kind."""
    place = _locate(error["loc"], root)
    key = printable(".".join(place.keys), LONGEST_KEY) or "config"
    match error["type"]:
        case "extra_forbidden" | "invalid_key":
            return f"unknown key {key}{_instead(place, root)}"
        case "union_tag_invalid":
            choice = error["ctx"]["discriminator"].strip("'")
            return _wrong_kind(f"{key}.{choice}", error["input"][choice], list(kinds_below(root)[key]))
        case "model_attributes_type":  # neither a word nor a mapping
            return _wrong_kind(key, error["input"], list(kinds_below(root)[key]))
        case "value_error":
            return error["msg"].removeprefix("Value error, ") + "."
        case _:
            return _wrong_value(key, place, error)


def key_of(error: ErrorDetails, root: type[Section]) -> str:
    """Return the dotted key that an error is about; empty for the whole config."""
    return ".".join(_locate(error["loc"], root).keys)


def key_meant(name: str, root: type[Section]) -> str | None:
    """Return the key that is meant by a name, dotted or its last part, of our own or of another tool."""
    name = name.replace("-", "_")
    same = [key for key, _ in fields_below(root) if name in (key, key.split(".")[-1])]
    return next(iter(same), None) or _elsewhere(name.split("."), root)


def quoted(value: Any) -> str:
    """Write a value in one line as YAML has it, cut where it is long."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    return value.isoformat() if isinstance(value, date) else quoted_in_python(value)


def _as_word(value: Any) -> str:
    return value[:LONGEST_KEY] if isinstance(value, str) else quoted(value)


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
    hint = f": did you mean {close}?" if (close := nearest(_as_word(value), kinds)) else "."
    others = OTHER_SETS if key.partition(".")[0] == "data" else ""
    return f"{key} is {quoted(value)}; it should be {listed(kinds)}{hint}{others}"


def _wrong_value(key: str, place: Place, error: ErrorDetails) -> str:
    is_part = error["type"] != "missing" and any(isinstance(part, int) for part in error["loc"])
    found = f"{key} {'has' if is_part else 'is'} {quoted(error['input'])}"
    field = place.section.model_fields.get(place.keys[-1]) if place.keys else None
    if field is None or sections_in(field):
        section = sections_in(field)[0] if field else place.section
        return f"{found}; it should have keys of its own, such as {next(iter(section.model_fields))}."
    try:
        schema = place.section.model_json_schema()["properties"][place.keys[-1]]
        expected = in_words(schema).replace("`", "")
    except (NotImplementedError, PydanticInvalidForJsonSchema):  # another package's field
        return f"{found}: {error['msg']}."
    bound = error.get("ctx", {}).get("lt")
    if isinstance(bound, int):  # of whole numbers it goes without saying, until it is met
        expected = re.sub(r"(whole number from \d+)", rf"\1 to {bound - 1:,}", expected)
    if error.get("ctx", {}).get("le") == LARGEST:
        expected = expected.replace("number above 0", "number above 0 and up to 1e30").replace(
            "number from 0", "number from 0 up to 1e30"
        )
    article = "a " if expected.startswith(COUNTABLE) else ""
    return f"{found}; it should be {article}{expected}{_hint(error['input'], schema, is_part=is_part)}"


def _hint(value: Any, schema: Mapping[str, Any], *, is_part: bool) -> str:
    """Return the end of a sentence about a wrong value: the nearest right value, if there is one."""
    if isinstance(value, int) and in_words(schema).startswith("path"):
        return ": write ./ before a name that is a number."
    if not isinstance(value, str | int | None):
        return "."
    meant = nearest(_as_word(value), words_of(schema))
    if "items" in schema and not is_part:
        meant = f"[{meant}]" if meant else "[]" if nearest(_as_word(value), ["null"]) else None
    return f": did you mean {meant}?" if meant else "."


def _instead(place: Place, root: type[Section]) -> str:
    """Return what could be meant by an unknown key: another kind's, one with a similar name, or one elsewhere."""
    *above, name = place.keys
    if len(name) > LONGEST_KEY:
        return "."
    known = {".".join([*above, key]): key for key in place.section.model_fields}
    called = [key for key in keys_called(name) if key in known]
    others = [kind for kind, section in place.kinds.items() if name in section.model_fields]
    if others and not called:
        return f": {place.kind} has no {name}, but {listed(others, 'and')} {'have' if len(others) > 1 else 'has'}."
    of_that_name = [] if name in KIND.split() else _keys_ending_in(name, root)
    begun = [key for key, last in known.items() if last.startswith(name)]
    found = next(iter([*called, *of_that_name, *_similar(name, known, 0.6), *begun]), None)
    if found := found or _elsewhere(place.keys, root):
        return f"; did you mean {found}?{f' ({EPOCH})' if is_in_epochs(name) else ''}"
    return f"; known here are {', '.join(known.values())}."


def _elsewhere(keys: Sequence[str], root: type[Section]) -> str | None:
    """Return the key of any section that another tool calls by the last of some keys, or that is most like it."""
    *above, name = keys
    known = {key: key.split(".")[-1] for key, _ in fields_below(root) if key != ".".join(above)}
    called = [key for key in keys_called(name) if key in known]
    close = difflib.get_close_matches(".".join(keys), known, n=1, cutoff=0.75)
    return next(iter([*called, *close, *_similar(name, known, 0.8)]), None)


def _keys_ending_in(name: str, root: type[Section]) -> list[str]:
    return list(dict.fromkeys(key for key, _ in fields_below(root) if key.split(".")[-1] == name))


def _similar(name: str, known: Mapping[str, str], cutoff: float) -> list[str]:
    """Return the keys of which the last part is most like a name."""
    close = difflib.get_close_matches(name, known.values(), n=1, cutoff=cutoff)
    return [key for key, last in known.items() if last in close]
