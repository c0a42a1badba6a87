"""The parts that a config's sections are made of: closed models, number types, and unions of kinds."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from numbers import Integral, Real
from typing import Annotated, Any, ClassVar, Literal, Union, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from vae_dist.config.plugins import plugins


def _as_number(value: Any) -> Any:
    """Read a number that YAML 1.1 takes for a word, such as 1e4, and those of other packages."""
    if isinstance(value, str):
        for read in (int, float):
            with suppress(ValueError):
                return read(value)
    if isinstance(value, Real) and not isinstance(value, bool):
        return int(value) if isinstance(value, Integral) else float(value)
    return value


def _as_whole(value: Any) -> Any:
    """Read a number, and one such as 1.0e4 as a whole one."""
    number = _as_number(value)
    return int(number) if isinstance(number, float) and number.is_integer() else number


LARGEST = 1e30  # of what float32 has to hold, also ten or a hundred times as large
# Strict, because pydantic takes truth values for 0 and 1.
Number = Annotated[float, BeforeValidator(_as_number), Field(strict=True, le=LARGEST)]
Whole = Annotated[int, BeforeValidator(_as_whole), Field(strict=True)]
# Larger numbers are slips of the finger, and torch can't hold them.
Count = Annotated[Whole, Field(gt=0, lt=2**31)]
CountOrZero = Annotated[Whole, Field(ge=0, lt=2**31)]
# Far more than anything that was ever trained: what others wrote is not built before it is in bounds.
Width = Annotated[Whole, Field(gt=0, lt=2**20 + 1)]  # units, channels, dimensions
Layers = Annotated[Whole, Field(gt=0, lt=1001)]
LayersOrZero = Annotated[Whole, Field(ge=0, lt=1001)]
Side = Annotated[Whole, Field(gt=0, lt=2**16 + 1)]  # of a picture, in pixels
PerStep = Annotated[Whole, Field(gt=0, lt=2**20 + 1)]  # images, draws
Threads = Annotated[Whole, Field(gt=0, lt=1025)]
# YAML 1.1 reads a bare on or off as a truth value.
Switch = Annotated[
    Literal["auto", "on", "off"],
    BeforeValidator(lambda value: ("on" if value else "off") if isinstance(value, bool) else value),
]


class Section(BaseModel):
    """A part of a config: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Kind(Section):
    """One kind of a section, with the function that builds what it describes.

    Attributes:
        builder: "module:function"; the module is imported when it is needed, so that a config needs no torch.
    """

    builder: ClassVar[str]

    def build(self, *arguments: Any) -> Any:
        """Call the builder with this config and further arguments."""
        module, function = self.builder.split(":")
        return getattr(import_module(module), function)(self, *arguments)


@dataclass(frozen=True)
class Kinds:
    """Marks a union of kinds, as in `Annotated[MLPConfig | ConvConfig, Kinds(default="mlp")]`.

    Attributes:
        default: the kind of a section that doesn't say which it is.
        key: the key that says it.
        group: of entry points, by which other packages add kinds.
    """

    default: str
    key: str = "kind"
    group: str = ""

    @staticmethod
    def of(field: FieldInfo) -> "Kinds | None":
        """Return the mark of a field; None if it is no union of kinds."""
        return next((mark for mark in field.metadata if isinstance(mark, Kinds)), None)

    def members(self, field: FieldInfo) -> dict[str, type[Kind]]:
        """Return the classes in a field's union by the names of their kinds."""
        return {
            name: member
            for member in (*get_args(field.annotation), *plugins(self.group))
            for name in get_args(member.model_fields[self.key].annotation)
        }

    def expand(self, value: Any) -> Any:
        """Write a section out: a bare word names its kind, and a missing kind is the default."""
        match value:
            case None:  # an empty section
                return {self.key: self.default}
            case str():
                return {self.key: value}
            case Mapping():
                return {self.key: self.default, **value}
            case _:
                return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        union = Annotated[Union[source, *plugins(self.group)], Field(discriminator=self.key)]  # type: ignore[valid-type]
        return core_schema.no_info_before_validator_function(self.expand, handler.generate_schema(union))


def sections_in(field: FieldInfo) -> list[type[Section]]:
    """Return the classes of section that a field can hold; none if it holds a plain value."""
    if kinds := Kinds.of(field):
        return list(dict.fromkeys(kinds.members(field).values()))
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
        return [field.annotation]
    return []
