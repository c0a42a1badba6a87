"""Errors that a user can cause: one clear sentence with what is wrong, where, and what to do.

The command line prints their message without a traceback and exits with their code.
"""


class UserError(Exception):
    """Report a failure in one clear message (exit code 1)."""

    exit_code = 1


class UsageError(UserError):
    """Report a wrong command or config (exit code 2)."""

    exit_code = 2
