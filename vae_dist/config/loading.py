"""Loading a config from a file, with overrides.

A config is a YAML file; whatever it leaves out has its default. Overrides of the form `section.key=value` are laid
over it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vae_dist.config.aliases import is_in_epochs, nearest
from vae_dist.config.explain import explain, explain_all, key_meant, key_of
from vae_dist.config.schema import Config, all_fields, all_kinds
from vae_dist.config.section import Kinds, Section
from vae_dist.config.shipped import shipped_configs
from vae_dist.config.yaml_text import MOST_BYTES, parse_yaml
from vae_dist.errors import UsageError
from vae_dist.json_files import read_bounded


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config file and lay `section.key=value` overrides over it.

    Raises:
        UsageError: the file is no YAML mapping, a key is unknown, or a value is out of range.
    """
    content = _read_config(path)
    for override in overrides:
        _apply_override(content, override)
    keys = [split_override(override)[0] for override in overrides]
    return parse_config(content, path.stem if path in shipped_configs().values() else str(path), keys)


def with_overrides(config: Config, overrides: Sequence[str], origin: str) -> Config:
    """Lay `section.key=value` overrides over a config, whose origin errors name.

    Raises:
        UsageError: a key is unknown, or a value is out of range.
    """
    content = config.model_dump()
    for override in overrides:
        _apply_override(content, override)
    return parse_config(content, origin, [split_override(override)[0] for override in overrides])


def parse_config(content: Any, origin: str, overridden: Sequence[str] = ()) -> Config:
    """Check plain data (from YAML or JSON) and make it a `Config`.

    Args:
        content: the data.
        origin: of the data, which errors name.
        overridden: keys that don't come from there, but from the command line.

    Raises:
        UsageError: a key is unknown, a value is out of range, or sections don't fit each other.
    """
    try:
        return Config.model_validate(content)
    except (UsageError, ValidationError) as error:  # the second: no mapping at all
        cause = error if isinstance(error, ValidationError) else error.__cause__
        if not isinstance(cause, ValidationError):
            raise
        lines = explain_all(cause, lambda detail: _with_origin(detail, origin, overridden))
        raise UsageError("\n".join(lines)) from cause


def override_meant(option: str, value: str) -> str | None:
    """Return the override that is meant by an option of other tools, such as --lr and 1e-3; None for others."""
    key = key_meant(option, Config)
    if key is None:
        return None
    if is_in_epochs(option):
        return f"{key}=STEPS"
    kinds = all_kinds().get(key.removesuffix(".kind").removesuffix(".name"), {})
    return f"{key}={nearest(value, list(kinds)) or value}"


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


def _with_origin(error: ErrorDetails, origin: str, overridden: Sequence[str]) -> str:
    """Explain an error, with the file that it is in unless an override is to blame."""
    key, line = key_of(error, Config), explain(error, Config)
    below = [name for name in overridden if not key or name.startswith(f"{key}.")]
    if any(f"{key}.".startswith(f"{name}.") for name in overridden) or (below and error["type"] != "value_error"):
        return line
    if any(name in line for name in below):  # sections that don't fit each other
        return line
    section = key.rpartition(".")[0]
    if {f"{section}.kind", f"{section}.name"} & set(overridden):
        line += f" For another kind replace the whole section: --set {section}=KIND."
    return f"{origin}: {line}"


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


def split_override(override: str) -> tuple[str, str]:
    """Return the key and the text of the value of a `section.key=value`.

    Raises:
        UsageError: it is none.
    """
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {override}: write it as section.key=value.")
    return key.strip(), text


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, text = split_override(override)
    *sections, name = key.split(".")
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
