"""From a name, a path and overrides to a config.

A config is a YAML file; whatever it leaves out has its default. Overrides of the form `section.key=value` are laid
over it. A key that doesn't exist is an error naming the nearest one that does.
"""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vae_dist.config.sections import Config, Section
from vae_dist.errors import UsageError

DEFAULT_CONFIG = "quickstart"
SHIPPED_CONFIGS = Path(__file__).parent.parent / "configs"  # a checkout has it at its top level too, as a link


def shipped_configs() -> dict[str, Path]:
    """Name and path of every config that comes with the package."""
    return {path.stem: path for path in sorted(SHIPPED_CONFIGS.glob("*.yaml"))}


def find_config(name_or_path: str) -> Path:
    """The file meant by a shipped config's name or a path.

    Raises:
        UsageError: there is neither.
    """
    shipped = shipped_configs()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.is_file():
        return path
    raise UsageError(
        f"There is no config {name_or_path!r}: no such file, and the shipped ones are {', '.join(shipped)}."
    )


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file and lay `section.key=value` overrides over it.

    Raises:
        UsageError: the file is no YAML mapping, a key is unknown, or a value is out of range.
    """
    content = _read_config(path)
    for override in overrides:
        _apply_override(content, override)
    settings = " ".join(f"--set {override}" for override in overrides)
    return parse_config(content, f"{path} with {settings}" if settings else str(path))


def parse_config(content: Any, origin: str) -> Config:
    """Check plain data (from YAML or JSON) and make it a `Config`; errors name its `origin`."""
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise UsageError("\n".join(f"{origin}: {_explain(detail)}" for detail in error.errors())) from error


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """The keys, as `section.key`, in which two configs differ, with both values."""
    before, after = flatten(old), flatten(new)
    return {key: (before[key], after[key]) for key in after if before[key] != after[key]}


def flatten(config: Config) -> dict[str, Any]:
    """Every value by its key, as `section.key`."""
    flat: dict[str, Any] = {}
    for name, value in config:
        if isinstance(value, Section):
            flat.update({f"{name}.{key}": item for key, item in value})
        else:
            flat[name] = value
    return flat


class _OneOfEach(yaml.SafeLoader):
    """YAML in which a key that is there twice is an error; PyYAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping, as PyYAML makes it."""
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"{key.value} is there twice"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str | bytes, origin: str) -> Any:
    try:
        return yaml.load(text, _OneOfEach)  # noqa: S506 - it is a SafeLoader
    except Exception as error:  # PyYAML's constructors raise a dozen kinds
        raise UsageError(f"{origin} is no YAML: {' '.join(str(error).split())}.") from error


def _read_config(path: Path) -> dict[str, Any]:
    content = _parse_yaml(path.read_bytes(), str(path))
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no config: sections such as `model:` are expected at its top.")
    return {key: {} if value is None else value for key, value in content.items()}  # an empty section


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {override}: write it as section.key=value.")
    *sections, name = key.strip().split(".")
    value = _parse_yaml(text, f"--set {override}: the value")
    for section in sections:
        if not isinstance(content.setdefault(section, {}), dict):
            raise UsageError(f"--set {override}: {section} has no keys of its own.")
        content = content[section]
    content[name] = value


def _key(detail: ErrorDetails) -> str:
    """Section and key; what follows says which of a value's parts or types it is about."""
    return ".".join(str(part) for part in detail["loc"][:2])


def _explain(detail: ErrorDetails) -> str:
    """One pydantic error as a sentence that names the key and, for an unknown one, the nearest right one."""
    key = _key(detail)
    match detail["type"]:
        case "extra_forbidden":
            return f"unknown key {key}; {_nearest(key.split('.'))}"
        case "value_error":
            return detail["msg"].removeprefix("Value error, ") + "."
        case _:
            message = detail["msg"].replace("Input should", "it should")
            return f"{key or 'config'} is {detail['input']!r}: {message}."


def _nearest(location: Sequence[str]) -> str:
    known = list(_keys())
    siblings = [key for key in known if key.split(".")[:-1] == list(location[:-1])]
    name = location[-1]
    sibling_names = [key.split(".")[-1] for key in siblings]
    by_name = difflib.get_close_matches(name, sibling_names, n=1) or [s for s in sibling_names if s.startswith(name)]
    if by_name:
        return f"did you mean {'.'.join([*location[:-1], by_name[0]])}?"
    elsewhere = [key for key in known if key.split(".")[-1] == name] or difflib.get_close_matches(
        ".".join(location), known, n=1, cutoff=0.75
    )
    if elsewhere:
        return f"did you mean {elsewhere[0]}?"
    return f"known here are {', '.join(key.split('.')[-1] for key in siblings)}."


def _keys() -> Iterable[str]:
    for name, field in Config.model_fields.items():
        yield name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from (f"{name}.{key}" for key in field.annotation.model_fields)
