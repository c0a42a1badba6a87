"""`vae-dist data inspect`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.options import IMAGES, Debug
from vae_dist.cli.reading import reading
from vae_dist.cli.written import print_written
from vae_dist.printable import printable

if TYPE_CHECKING:
    from PIL.Image import Image

    from vae_dist.data.progress import Progress


@handle_errors
@rank_zero_only
def inspect(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PICTURES", help="Folder or archive (.zip, .tar) of pictures, or folder of a packed set."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Contact sheet to write: up to 64 of the pictures.")] = IMAGES
    / "inspect.png",
    debug: Debug = False,
) -> None:
    """Say what a folder of pictures or a packed set holds, and draw some of it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from vae_dist.data.packs.manifest import MANIFEST
    from vae_dist.data.search_path import expanded
    from vae_dist.inference.drawing import save_picture
    from vae_dist.reporting.inspection import origin_of_sheet

    console, folder = Console(), expanded(path)
    with reading(console) as show:
        if (folder / MANIFEST).is_file():
            facts, sheet = _packed(folder, show)
        else:
            facts, sheet = _folder(folder, show)
    table = Table.grid(padding=(0, 2))
    for name, fact in facts.items():
        table.add_row(Text(printable(name), style="bold"), Text(printable(fact), overflow="fold"))
    console.print(table)
    if sheet is not None:
        print_written(out, replaced=save_picture(out, sheet, origin_of_sheet(path)))


def _packed(folder: Path, show: "Progress") -> "tuple[dict[str, str], Image | None]":
    from vae_dist.data.look import SIDE
    from vae_dist.data.packs.dataset import open_pack
    from vae_dist.data.packs.manifest import read_manifest
    from vae_dist.data.packs.verification import verify
    from vae_dist.inference.contact_sheet import sheet_of_pack
    from vae_dist.reporting.inspection import facts_of_pack

    manifest = read_manifest(folder)
    verify(folder, manifest, show)
    dataset = open_pack(folder, resident=False, size=(SIDE, SIDE) if manifest.store == "original" else None)
    return facts_of_pack(dataset), sheet_of_pack(dataset)


def _folder(folder: Path, show: "Progress") -> "tuple[dict[str, str], Image | None]":
    from vae_dist.data.packs.picture_set import find_pictures
    from vae_dist.data.survey import survey
    from vae_dist.inference.contact_sheet import sheet_of_folder
    from vae_dist.reporting.inspection import facts_of_folder

    seen = survey(find_pictures(folder), show)
    return facts_of_folder(seen), sheet_of_folder(seen) if seen.readable else None
