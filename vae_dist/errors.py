"""What goes wrong and can be told in one sentence: what, where, and what to do.

Everything a user can cause is raised as one of these and printed by the command line without a traceback.
"""


class UserError(Exception):
    """A failure told in one clear message (exit code 1)."""

    exit_code = 1


class UsageError(UserError):
    """A wrong command or config (exit code 2)."""

    exit_code = 2
