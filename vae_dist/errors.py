"""Errors that a user can cause: one clear sentence with what is wrong, where, and what to do.

The command line prints their message without a traceback and exits with their code.
"""


class UserError(Exception):
    """Report a failure in one clear message (exit code 1)."""

    exit_code = 1


class UsageError(UserError):
    """Report a wrong command or config (exit code 2)."""

    exit_code = 2


class OutOfMemoryError(UserError):
    """Report that memory ran out, perhaps in one process alone."""


def is_lack_of_memory(error: Exception) -> bool:
    """Return whether memory ran out, as Python, CUDA, torch's CPU allocator or C++ report it."""
    names = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return names or any(words in str(error) for words in ("Allocator: can't", "bad_alloc", "Storage size"))
