"""Loading a config from a name or a path, with overrides.

A config is a YAML file; whatever it leaves out has its default. Overrides of the form `section.key=value` are laid
over it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vae_dist.config.explain import explain_all
from vae_dist.config.schema import Config, all_fields
from vae_dist.config.section import Kinds, Section
from vae_dist.config.yaml_text import MOST_BYTES, parse_yaml
from vae_dist.errors import UsageError
from vae_dist.json_files import read_bounded

DEFAULT_CONFIG = "quickstart"
SHIPPED_CONFIGS = Path(__file__).parent.parent / "configs"  # a checkout has it at its top level too, as a link


def shipped_configs() -> dict[str, Path]:
    """Return the name and path of every config that comes with the package."""
    return {path.stem: path for path in sorted(SHIPPED_CONFIGS.glob("*.yaml"))}


def find_config(name_or_path: str) -> Path:
    """Return the file meant by a shipped config's name or a path.

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
    except UsageError as error:
        raise UsageError("\n".join(f"{origin}: {line}" for line in str(error).splitlines())) from error
    except ValidationError as error:  # no mapping at all
        raise UsageError("\n".join(f"{origin}: {line}" for line in explain_all(error, Config))) from error


def differences(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys in which two configs differ, with both values; a key that one lacks is None there."""
    before, after = flatten(old), flatten(new)
    pairs = {key: (before.get(key), after.get(key)) for key in before | after}
    return {key: (there, here) for key, (there, here) in pairs.items() if there != here}


def flatten(section: Section) -> dict[str, Any]:
    """Return every value by its dotted key."""
    flat: dict[str, Any] = {}
    for name, value in section:
        if isinstance(value, Section):
            flat.update({f"{name}.{key}": inner for key, inner in flatten(value).items()})
        else:
            flat[name] = value
    return flat


def _parse_yaml(text: str | bytes, origin: str) -> Any:
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise UsageError(f"{origin} is no YAML: {error}.") from error


def _read_config(path: Path) -> dict[str, Any]:
    try:
        text = read_bounded(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read: {error}.") from error
    content = _parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no config: sections such as `model:` are expected at its top.")
    return {key: {} if value is None else value for key, value in content.items()}  # an empty section


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {override}: write it as section.key=value.")
    *sections, name = key.strip().split(".")
    value = _parse_yaml(text, f"--set {override}: the value")
    for depth, section in enumerate(sections, start=1):
        inner = _written_out(".".join(sections[:depth]), content.get(section))
        if not isinstance(inner, dict):
            raise UsageError(f"--set {override}: {section} has no keys of its own.")
        content[section] = inner
        content = inner
    content[name] = value


def _written_out(key: str, value: Any) -> Any:
    """Return a section as a mapping of its own, also if it is missing or a bare word for its kind."""
    if isinstance(value, str):
        marks = (Kinds.of(field) for known, field in all_fields() if known == key)
        return next((mark.expand(value) for mark in marks if mark), value)
    return dict(value or {}) if isinstance(value, dict | None) else value
