"""The fields and kinds below a section, by their dotted keys."""

from collections.abc import Iterator

from pydantic.fields import FieldInfo

from vae_dist.config.section import Kind, Kinds, Section, sections_in


def fields_below(section: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every field that a section can have, of all kinds of its sections, with its dotted key.

    Keys that several kinds have come once for each.
    """
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}", field
        for inner in sections_in(field):
            yield from fields_below(inner, f"{prefix}{name}.")


def kinds_below(section: type[Section]) -> dict[str, dict[str, type[Kind]]]:
    """Return the kinds of every section that comes in kinds, by its dotted key and by their names."""
    found: dict[str, dict[str, type[Kind]]] = {}
    for key, field in fields_below(section):
        if kinds := Kinds.of(field):
            found.setdefault(key, {}).update(kinds.members(field))
    return found
