"""`vae-dist init`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.options import Debug
from vae_dist.cli.reading import reading
from vae_dist.errors import UserError
from vae_dist.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from vae_dist.runs.first_data import Images


@handle_errors
@rank_zero_only
def init(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PICTURES", help="Folder or archive (.zip, .tar) of pictures, or folder of a packed set."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Config to write; none is overwritten.", show_default="NAME.yaml, by its name"),
    ] = None,
    purpose: Annotated[
        Literal["rebuild", "draw"] | None,
        typer.Option(
            "--for",
            help="A model that rebuilds pictures, in minutes, or one that draws new ones, in hours.",
            show_default="draw for small grey pictures like digits, else rebuild",
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a first config for pictures of your own, with a reason beside every value."""
    import shlex

    from rich.console import Console

    from vae_dist.atomic_files import replace_file
    from vae_dist.data.search_path import expanded
    from vae_dist.runs.first_config import GOOD_FOR, OTHER, first_config, plan_for
    from vae_dist.runs.first_models import purpose_for

    console, folder = Console(), expanded(path)
    target = out or Path(f"{_name(folder) or 'pictures'}.yaml")
    _refuse_to_overwrite(target)
    images = _images(folder, console)
    plan = plan_for(images, purpose or purpose_for(images))
    replace_file(target, first_config(images, plan).encode())
    print(printable(f"found   {images.found}"))
    print(f"model   {plan.model.kind}: {GOOD_FOR[plan.model.purpose]}; the other: --for {OTHER[plan.model.purpose]}")
    print(f"config  {plan.steps:,} steps of {plan.batch}: about {plan.duration} on two idle CPU cores")
    print(printable(f"Next: vae-dist train {shlex.quote(str(target))}"))


def _images(folder: Path, console: "Console") -> "Images":
    from vae_dist.data.packs.manifest import MANIFEST
    from vae_dist.data.packs.picture_set import find_pictures
    from vae_dist.data.survey import survey
    from vae_dist.runs.first_data import images_of_folder, images_of_pack

    if (folder / MANIFEST).is_file():
        return images_of_pack(folder)
    with reading(console) as show:
        return images_of_folder(survey(find_pictures(folder), show), folder)


def _name(folder: Path) -> str:
    """Return the name of a folder, or that of an archive without its suffix."""
    place = folder.resolve()
    return place.stem if place.is_file() else place.name


def _refuse_to_overwrite(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise UserError(f"{target} is there already, and init overwrites nothing: give another name with --out.")
