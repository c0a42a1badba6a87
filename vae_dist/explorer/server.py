"""A web server for this machine alone."""

import socket
from importlib.util import find_spec
from typing import TYPE_CHECKING

from vae_dist.errors import UsageError, UserError

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette

LOOPBACK = "127.0.0.1"
PATIENCE_S = 1  # for answers that are being sent when the server ends


def check_installed() -> None:
    """Check that the packages are there that serve the page.

    Raises:
        UsageError: one is not.
    """
    if any(find_spec(name) is None for name in ("starlette", "uvicorn")):
        raise UsageError("vae-dist explore needs starlette and uvicorn: pip install 'vae-dist[ui]'.")


def listen(port: int) -> socket.socket:
    """Return a socket that hears this machine alone, on a port, or on any free one for 0.

    Raises:
        UserError: the port is taken, or not allowed.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was left a moment ago is free
    try:
        listener.bind((LOOPBACK, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise UserError(
            f"Port {port} can't be used ({error.strerror}): give another with --port, or any free one with --port 0."
        ) from error
    return listener


def address(listener: socket.socket) -> str:
    """Return the address that a browser opens."""
    return f"http://{LOOPBACK}:{listener.getsockname()[1]}"


def build_server(app: "Starlette") -> "uvicorn.Server":
    """Return a server that runs until a signal comes, ends, and raises that signal again."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_config=None,  # errors go to stderr
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=PATIENCE_S,
    )
    return uvicorn.Server(config)
