"""The page and its operations over HTTP, for the page itself and for no other site that a browser has open."""

from collections.abc import Awaitable, Callable, Mapping

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from vae_dist.data.archives.entry import LARGEST_FILE
from vae_dist.errors import UserError, is_lack_of_memory
from vae_dist.explorer.operations import Answer
from vae_dist.printable import printable

Operation = Callable[[bytes], Answer]
HOSTS = ["127.0.0.1", "localhost"]  # under which a browser may ask: any other name is an attack by DNS rebinding
HEADERS = {"Cache-Control": "no-store", "X-Frame-Options": "DENY"}


def build_app(operations: Mapping[str, Operation], page: str) -> Starlette:
    """Return the application: a page at /, and each operation at its name.

    One request is answered at a time, since they all take the same cores.
    """

    async def show(request: Request) -> Response:
        return HTMLResponse(page, headers=HEADERS)

    routes = [Route(f"/{name}", _endpoint(operation), methods=["POST"]) for name, operation in operations.items()]
    trusted = Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)
    return Starlette(routes=[Route("/", show), *routes], middleware=[trusted])


def _endpoint(operation: Operation) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        if request.headers.get("origin", _own_origin(request)) != _own_origin(request):
            return _refusal("Only the page of this server may ask it.", 403)
        body = await _body(request)
        if body is None:
            return _refusal(f"That file has more than {LARGEST_FILE >> 20} MiB: make it smaller.", 413)
        return _answered(operation, body)

    return answer


def _own_origin(request: Request) -> str:
    """Return the origin that a browser names where a page asks its own server."""
    return f"http://{request.headers.get('host')}"


async def _body(request: Request) -> bytes | None:
    """Return the body of a request, or None for one that is too large, of which no more than that is kept."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_FILE:
            return None
    return bytes(body)


def _answered(operation: Operation, body: bytes) -> Response:
    try:
        return JSONResponse(operation(body))
    except ValidationError:
        return _refusal("This is no request of this page: load it again.", 400)
    except UserError as error:
        return _refusal(str(error), 400)
    except (RuntimeError, MemoryError) as error:
        if not is_lack_of_memory(error):
            raise
        return _refusal("There is not enough memory for that.", 503)


def _refusal(sentence: str, status: int) -> Response:
    return JSONResponse({"error": printable(sentence)}, status)
