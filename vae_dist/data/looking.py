"""Look at many picture files.

Without torch, which takes seconds to import: processes of their own do it.
"""

from collections.abc import Iterable

from vae_dist.data.look import Look, look
from vae_dist.data.packs.files import PictureFile
from vae_dist.data.pictures import PILLOW_IS_QUIET
from vae_dist.errors import UserError


@PILLOW_IS_QUIET
def look_at(files: Iterable[PictureFile]) -> list[Look]:
    """Decode files and return their descriptions."""
    return [_look_at(file) for file in files]


def _look_at(file: PictureFile) -> Look:
    try:
        return look(file.open(), file.name)
    except UserError as error:
        return Look(problem=_named(file, str(error)))


def _named(file: PictureFile, said: str) -> str:
    """Say what is wrong with a file, with its name once."""
    return said if file.name in said else f"{file.name}: {said}"
