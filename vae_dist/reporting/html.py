"""Pieces of HTML, in which whatever comes from a run is escaped."""

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

from vae_dist.printable import printable

LONGEST = 2_000  # characters of a text


def escaped(text: object, longest: int = LONGEST) -> str:
    """Return a text for the content of an element or an attribute in double quotes, cut where it is long."""
    return html.escape(printable(str(text), longest))


def element(name: str, content: str = "", **attributes: str) -> str:
    """Return an element around HTML that is safe already; attributes are escaped."""
    written = "".join(f' {key}="{escaped(value)}"' for key, value in attributes.items())
    return f"<{name}{written}>{content}</{name}>"


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Return a table of texts, the first column of which names the rows; it scrolls where it is too wide."""
    top = "".join(element("th", escaped(cell), scope="col") for cell in head)
    body = "".join(
        f"<tr>{element('th', escaped(first), scope='row')}"
        f"{''.join(element('td', escaped(cell)) for cell in cells)}</tr>"
        for first, *cells in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def data_block(identity: str, value: Any) -> str:
    """Return plain data for the page's script, as JSON that can't end its element."""
    return (
        f'<script type="application/json" id="{identity}">{json.dumps(value).replace("<", chr(92) + "u003c")}</script>'
    )


def page(title: str, style: str, script: str, body: str, *, asks_server: bool = False) -> str:
    """Return a page that loads nothing and runs no other script than its own: its policy names that by its hash.

    Args:
        title: of the page, not escaped yet.
        style: CSS.
        script: JavaScript.
        body: HTML that is safe already.
        asks_server: let the script send requests to the server that the page came from, and to no other.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    policy += "; connect-src 'self'" if asks_server else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escaped(title)}</title><style>{style}</style></head>"
        f"<body>{body}<script>{script}</script></body></html>\n"
    )
