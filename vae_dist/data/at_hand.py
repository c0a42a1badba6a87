"""Load data only if they are on this machine, for commands that only look at a run, which may be a stranger's."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from vae_dist.errors import UserError

_only_at_hand: ContextVar[bool] = ContextVar("only at hand", default=False)


@contextmanager
def only_at_hand() -> Iterator[None]:
    """Refuse to load data, while entered, that are neither on this machine nor in its cache."""
    token = _only_at_hand.set(True)
    try:
        yield
    finally:
        _only_at_hand.reset(token)


def check_fetching(name: str) -> None:
    """Check that data may be fetched that are not at hand.

    Raises:
        UserError: they may not, within `only_at_hand`.
    """
    if _only_at_hand.get():
        raise UserError(f"The images of {name} are not at hand: `vae-dist evaluate` fetches or decodes them.")
