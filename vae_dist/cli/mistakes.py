"""Turn mistakes in a command line into sentences that name the nearest right word.

typer keeps its classes of errors and types to itself: they are known by their attributes.
"""

import difflib
import re
from collections.abc import Sequence
from typing import Any


def sentence(error: Any, arguments: Sequence[str]) -> str:
    """Put an error of typer's parser in a sentence.

    Args:
        error: that it raised.
        arguments: that it read.
    """
    command = error.ctx.command_path if getattr(error, "ctx", None) else "vae-dist"
    if hasattr(error, "possibilities"):
        return f"{command} has no option {error.option_name}{_option_meant(error, arguments)}"
    if unknown := re.match(r"No such command '(.*?)'", error.message):
        return f"{command} has no command {unknown[1]}{_command_meant(error, unknown[1])}"
    wrong = re.match(r"'?(.*?)'? is not ", error.message)
    if wrong and (expected := _expected(getattr(error, "param", None))):
        return f"{error.param.opts[0]} is {wrong[1]}; it should be {expected}{_value_meant(error, wrong[1])}"
    hint = " Values are set by --set KEY=VALUE." if "extra argument" in error.message and "=" in error.message else ""
    return f"{command}: {error.format_message().rstrip('.')}.{hint}"


def _option_meant(error: Any, arguments: Sequence[str]) -> str:
    from vae_dist.config.aliases import EPOCH, NOT_OPTIONS, OPTIONS, called, is_in_epochs

    known = [option for parameter in error.ctx.command.params for option in parameter.opts if option.startswith("--")]
    name, trains = error.option_name.lstrip("-"), error.ctx.info_name == "train"
    plain = name.replace("_", "-").lower()
    own = {option: names for option, names in OPTIONS.items() if option.split()[0] in known}
    if trains and (reason := called(plain, NOT_OPTIONS)):
        return f": {reason}."
    similar = difflib.get_close_matches(plain, [option.lstrip("-") for option in known], n=1, cutoff=0.75)
    if option := called(plain, own) or next((f"--{option}" for option in similar), None):
        return f"; did you mean {option}?"
    if trains and (setting := _setting_meant(error.option_name, arguments)):
        return f"; did you mean --set {setting}?{f' ({EPOCH})' if is_in_epochs(plain) else ''}"
    return f"; it has {', '.join(known)}."


def _setting_meant(option: str, arguments: Sequence[str]) -> str | None:
    from vae_dist.config.loading import override_meant

    words = [word for word in arguments if word.partition("=")[0] == option]
    if not words:  # one of several letters behind a dash
        return None
    _, equals, value = words[0].partition("=")
    follows = "" if equals else next(iter(arguments[arguments.index(words[0]) + 1 :]), "--")
    return override_meant(option.lstrip("-"), value if equals else "VALUE" if follows.startswith("--") else follows)


def _command_meant(error: Any, name: str) -> str:
    from vae_dist.config.aliases import COMMANDS, called, nearest

    known = list(error.ctx.command.commands)
    meant = called(name, {command: names for command, names in COMMANDS.items() if command in known})
    meant = meant or nearest(name, known)
    return f"; did you mean {meant}?" if meant else f"; it has {', '.join(known)}."


def _expected(parameter: Any) -> str:
    """Return the values that a parameter takes, in words; empty where its own error has to do."""
    from vae_dist.config.aliases import listed

    if parameter is None:
        return ""
    kind = parameter.type
    if choices := getattr(kind, "choices", None):
        return listed(choices)
    number = {"int": "a whole number", "integer": "a whole number", "float": "a number"}.get(kind.name.split()[0], "")
    least, most = getattr(kind, "min", None), getattr(kind, "max", None)
    return f"{number}{'' if least is None else f' from {least:g}'}{'' if most is None else f' to {most:,}'}"


def _value_meant(error: Any, value: str) -> str:
    from vae_dist.config.aliases import nearest

    meant = nearest(value, list(getattr(error.param.type, "choices", ())))
    return f": did you mean {meant}?" if meant else "."
