"""Errors as messages and exit codes: one clear sentence, printed once and not once for each rank.

0 done, 1 a failure, 2 a wrong command or config, 75 preempted, 130 interrupted.
"""

import functools
import io
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, ParamSpec, TextIO

import typer

from vae_dist.cli.mistakes import sentence
from vae_dist.distributed.launcher import follow_launcher
from vae_dist.distributed.launcher_env import check_variables, number, requested_rank
from vae_dist.distributed.signals import EXIT_CODES, SIGNALS, ctrl_c_raises, let_ctrl_c_end_quietly
from vae_dist.errors import UsageError, UserError, is_lack_of_memory
from vae_dist.printable import printable

Parameters = ParamSpec("Parameters")
LONGEST_TRACEBACK = 100_000  # characters


def run(app: typer.Typer) -> None:
    """Run the program in this process, and exit with its code."""
    let_ctrl_c_end_quietly()
    try:
        check_variables()
    except UserError as error:
        _print_error(str(error))
        sys.exit(error.exit_code)
    follow_launcher()
    # libgomp reads this when torch is imported. Its threads wait for each other in a busy loop of 300,000 turns; on a
    # machine with other work that made training 50 times slower than one thread alone. This short a wait costs 2 to
    # 8 % on a quiet machine and gives back most of it on a busy one.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    warnings.showwarning = _print_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every terminal has a −
    if rank := requested_rank():  # what all ranks would say alike, rank 0 says; errors, the first one of each machine
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
        sys.stderr = sys.stdout if number("LOCAL_RANK", rank) else sys.stderr
    sys.unraisablehook = _end_if_interrupted
    _leave(_exit_code(app))


def _exit_code(app: typer.Typer) -> int:
    try:
        code = app(prog_name=app.info.name, standalone_mode=False)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except Exception as error:  # raised further, the interpreter's end could wait for other processes
        if hasattr(error, "format_message"):  # typer's, about the command line
            if error.format_message():  # empty where help was shown, because there was nothing else
                _print_error(sentence(error, sys.argv[1:]))
            return UsageError.exit_code
        if isinstance(error, OSError) and (message := _message(error)):  # help can't be written
            _print_error(message)
            return 1
        print(printable(traceback.format_exc(), LONGEST_TRACEBACK), file=sys.__stderr__)  # a mistake of ours
        return 1
    return code if isinstance(code, int) else 0


def handle_errors(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Make a command end with a message and an exit code where it would raise an error that a user can cause.

    With `--debug` the traceback is shown instead.
    """

    @functools.wraps(command)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            with ctrl_c_raises():
                command(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            print(str(interrupt) or "Stopped.", file=sys.stderr)
            raise typer.Exit(EXIT_CODES["interrupted"]) from None
        except (UserError, OSError, RuntimeError, MemoryError) as error:
            message = _message(error)
            if message is None or kwargs.get("debug"):
                raise
            # Memory can be short in one process alone, and then nobody else knows.
            _print_error(message, sys.__stderr__ if is_lack_of_memory(error) else sys.stderr)
            raise typer.Exit(error.exit_code if isinstance(error, UserError) else 1) from None

    return wrapped


def rank_zero_only(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Run a command on one process only, should a launcher have started more."""

    @functools.wraps(command)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        if requested_rank() == 0:
            command(*args, **kwargs)

    return wrapped


def _message(error: Exception) -> str | None:
    """Return the message of an error, or None for one that is a mistake of ours."""
    if isinstance(error, UserError):
        return str(error)
    if is_lack_of_memory(error):
        reason = str(error).partition("Allocator: ")[2] or str(error)
        return (
            f"There is not enough memory ({reason.partition('. ')[0]}): a smaller model takes less, or fewer at a time."
        )
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'The system says'}: {error.strerror}."
    return None


def _print_error(message: str, stream: TextIO | None = None) -> None:
    with suppress(OSError):  # a full disk: nothing can be said
        print(f"Error: {printable(message)}", file=stream or sys.stderr)


def _print_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"Warning: {printable(str(message))}", file=sys.stderr)


def _end_if_interrupted(unraisable: "sys.UnraisableHookArgs") -> None:
    """End the program where a Ctrl-C hit code that can't raise, as finalizers; Python would print a traceback."""
    if unraisable.exc_type is KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        _leave(EXIT_CODES["interrupted"])
    sys.__unraisablehook__(unraisable)


def _leave(code: int) -> NoReturn:
    """End the process without the interpreter's farewell.

    It would wait for compilers and other processes, show a traceback of a Ctrl-C, and take gloo's threads down while
    they hold tensors, which aborts.
    """
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    try:
        sys.stdout.flush()
    except (BrokenPipeError, ValueError, AttributeError):  # nobody reads on, closed, or none
        pass
    except OSError as error:  # what was printed is lost, on a full disk, say
        if code == 0:
            code = 1
            with suppress(OSError, ValueError, AttributeError):
                _print_error(_message(error) or str(error))
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
    os._exit(code)
