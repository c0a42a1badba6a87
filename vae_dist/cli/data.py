"""`vae-dist data`: packed sets of pictures."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.inspect import inspect
from vae_dist.cli.options import HELP, Debug
from vae_dist.cli.reading import reading
from vae_dist.errors import UsageError
from vae_dist.printable import printable

data = typer.Typer(
    no_args_is_help=True, context_settings=HELP, help="Inspect pictures, and pack them once and for all runs."
)
SHARD_MIB = 512

data.command()(inspect)


@data.command()
@handle_errors
@rank_zero_only
def pack(
    pictures: Annotated[
        Path,
        typer.Argument(
            metavar="PICTURES",
            help="Folder or archive (.zip, .tar) of pictures; its folders train, val, test are splits.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the packed set.")],
    store: Annotated[
        Literal["pixels", "original"], typer.Option(help="Hold pixels of one size, or the files, decoded in training.")
    ] = "pixels",
    size: Annotated[
        str | None, typer.Option(metavar="SIDE|HxW", help="Bring pictures to these pixels.", show_default="their own")
    ] = None,
    levels: Annotated[
        tuple[float, float] | None, typer.Option(help="Values that become 0 and 255.", show_default="their type's")
    ] = None,
    fit: Annotated[
        Literal["crop", "pad"], typer.Option(help="To --size: keep the centred part, or the whole picture.")
    ] = "crop",
    background: Annotated[
        int, typer.Option(min=0, max=255, help="Grey level below transparent pictures and around padded ones.")
    ] = 0,
    on_error: Annotated[Literal["raise", "skip"], typer.Option(help="About pictures that can't be read.")] = "raise",
    shard_size: Annotated[int, typer.Option(min=1, help="MiB of pixels or pictures in a file.")] = SHARD_MIB,
    debug: Debug = False,
) -> None:
    """Put pictures into a set that opens at once. The same command goes on where it was stopped."""
    from rich.console import Console

    from vae_dist.data.packs.pack_folder import pack_folder

    skip, shard_bytes = on_error == "skip", shard_size << 20
    with reading(Console(), f"The same command goes on with what is in {out}.") as show:
        packed = pack_folder(
            pictures,
            out,
            store,
            _size(size),
            levels=_levels(levels),
            method=fit,
            background=background,
            skip=skip,
            shard_bytes=shard_bytes,
            on_progress=show,
        )
    print(printable(packed))
    fitted = ", size: 64" if store == "original" else ""
    setting = f"data={{name: packed, root: {json.dumps(str(out))}{fitted}, binarize: none}}"
    print(printable(f"Next: vae-dist train folder --set {shlex.quote(setting)}"))


@data.command()
@handle_errors
@rank_zero_only
def clear_cache(debug: Debug = False) -> None:
    """Delete the packed sets that runs on folders have put into the cache."""
    from vae_dist.data.packs.cache import clear_cache as clear
    from vae_dist.data.packs.cache import packs_folder

    print(f"{clear() / 2**20:,.0f} MiB freed in {packs_folder()}")


def _levels(levels: tuple[float, float] | None) -> tuple[float, float] | None:
    from vae_dist.config.data import check_levels

    try:
        return None if levels is None else check_levels(levels)
    except ValueError as error:
        raise UsageError(f"{error}.".replace("data.levels is", "--levels is")) from error


def _size(text: str | None) -> tuple[int, int] | None:
    """Read a side, or a height and a width."""
    if text is None:
        return None
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and 0 < int(part) < 2**16 for part in parts):
        raise UsageError(f"--size {text}: write the side in pixels, as 64, or height and width, as 64x48.")
    return int(parts[0]), int(parts[-1])
