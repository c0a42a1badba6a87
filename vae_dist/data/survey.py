"""A survey of the pictures below a folder: every one of them is looked at."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from vae_dist.config import Split
from vae_dist.data.look import Look
from vae_dist.data.looking import look_at
from vae_dist.data.packs.decoding import Decoder
from vae_dist.data.packs.files import PictureFile
from vae_dist.data.packs.picture_set import PictureSet
from vae_dist.data.progress import Progress


@dataclass(frozen=True)
class Survey:
    """The descriptions of all files of a set of pictures.

    Attributes:
        pictures: the set.
        looks: at each of its files, in their order.
    """

    pictures: PictureSet
    looks: Mapping[Split, Sequence[Look]]

    def __iter__(self) -> Iterator[tuple[PictureFile, Look]]:
        """Yield every file with its description."""
        files = chain.from_iterable(self.pictures.files.values())
        return zip(files, chain.from_iterable(self.looks.values()), strict=True)

    @property
    def readable(self) -> list[Look]:
        """Return the looks at files that can be read."""
        return [seen for _, seen in self if not seen.problem]

    @property
    def problems(self) -> list[str]:
        """Return what is wrong with each file that can't be read."""
        return [seen.problem for _, seen in self if seen.problem]

    @property
    def is_grey(self) -> bool:
        """Return whether every picture is grey in truth, so that a model of them has one channel."""
        return all(seen.is_grey for seen in self.readable)


def survey(pictures: PictureSet, on_progress: Progress) -> Survey:
    """Look at every file of a set, on all cores.

    Args:
        pictures: the set.
        on_progress: called after every few files.
    """
    files = [file for of_split in pictures.files.values() for file in of_split]
    looks: list[Look] = []
    with Decoder(look_at) as looking:
        for found in looking(files):
            looks += found
            on_progress(len(looks), len(files))
    rest = iter(looks)
    return Survey(pictures, {split: [next(rest) for _ in part] for split, part in pictures.files.items()})
