"""The two kinds of packed sets: of pixels, brought to one size, or of files as they are."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from vae_dist.data.fitting import Rule
from vae_dist.data.levels import Levels
from vae_dist.data.packs.decoding import Chunk, decode_to_fit
from vae_dist.data.packs.files import PictureFile
from vae_dist.data.packs.manifest import Storage
from vae_dist.data.packs.originals import Kept, keep_files
from vae_dist.data.remarks import Remarks

Content = TypeVar("Content")


@runtime_checkable
class Store(Protocol[Content]):
    """Turns files into the tensors of a shard.

    Attributes:
        storage: its name in the manifest.
        fit: by which pictures become pixels; None for files as they are.
        levels: the values that become 0 and 255 when files are decoded; None for those of the pixels' type.
        key: all that the content of shards depends on beside the files, as JSON has it.
        process: reads or decodes a few files; can be sent to another process.
    """

    @property
    def storage(self) -> Storage: ...  # noqa: D102

    @property
    def fit(self) -> Rule | None: ...  # noqa: D102

    @property
    def levels(self) -> Levels | None: ...  # noqa: D102

    @property
    def key(self) -> Any: ...  # noqa: D102

    @property
    def process(self) -> Callable[[Iterable[PictureFile]], Chunk[Content]]: ...  # noqa: D102

    def shards(self, files: Sequence[PictureFile], shard_bytes: int) -> Iterator[Sequence[PictureFile]]:
        """Yield the files of each shard."""
        ...

    def tensors(self, contents: Sequence[Content], *, grey: bool) -> dict[str, Tensor]:
        """Return the tensors of a shard, of which `grey` says whether all of its pictures are."""
        ...

    def notes(self, remarks: Remarks, pictures: int) -> dict[str, str]:
        """Return what is remarkable about so many pictures, by name."""
        ...


class PixelStore:
    """Pixels, decoded and made to fit.

    Args:
        rule: how pictures are made to fit.
    """

    storage: Storage = "pixels"
    levels: Levels | None = None  # are in the rule

    def __init__(self, rule: Rule) -> None:
        self.fit = rule
        self.key = rule.model_dump()
        self.process = partial(decode_to_fit, rule)

    def shards(self, files: Sequence[PictureFile], shard_bytes: int) -> Iterator[Sequence[PictureFile]]:
        """Yield the files of each shard, as many for all."""
        count = max(1, shard_bytes // (3 * self.fit.height * self.fit.width))
        return (files[start : start + count] for start in range(0, len(files), count))

    def tensors(self, contents: Sequence[UInt8[np.ndarray, "_ _ h w"]], *, grey: bool) -> dict[str, Tensor]:
        """Return the pixels in one tensor."""
        channels = 1 if grey else 3
        return {"pixels": torch.cat([torch.from_numpy(part).expand(-1, channels, -1, -1) for part in contents])}

    def notes(self, remarks: Remarks, pictures: int) -> dict[str, str]:
        """Return what was lost of pictures or added to them, by name."""
        return remarks.notes(pictures, self.fit.height, self.fit.width)


class OriginalStore:
    """The bytes of files that can be decoded.

    Args:
        levels: the values that become 0 and 255 when they are; None for those of the pixels' type.
    """

    storage: Storage = "original"
    fit: Rule | None = None

    def __init__(self, levels: Levels | None) -> None:
        self.levels = levels
        self.key = ("original", levels)
        self.process = partial(keep_files, levels)

    def shards(self, files: Sequence[PictureFile], shard_bytes: int) -> Iterator[Sequence[PictureFile]]:
        """Yield the files of each shard, up to so many bytes; one at least."""
        first, size = 0, 0
        for number, file in enumerate(files):
            if number > first and size + file.size > shard_bytes:
                yield files[first:number]
                first, size = number, 0
            size += file.size
        yield files[first:]

    def tensors(self, contents: Sequence[list[Kept]], *, grey: bool) -> dict[str, Tensor]:
        """Return the bytes of all files, where each of them begins, and the sizes of their pictures."""
        files = [file for part in contents for file in part]
        content = bytearray()
        for file in files:
            content += file.content
        return {
            "bytes": torch.frombuffer(content, dtype=torch.uint8),
            "offsets": torch.tensor([0, *(len(file.content) for file in files)]).cumsum(0),
            "sizes": torch.tensor([file.size for file in files]),
        }

    def notes(self, remarks: Remarks, pictures: int) -> dict[str, str]:
        """Return what is lost of values and pages; how pictures are made to fit isn't known yet."""
        lost = remarks.in_words()
        return {"levels": lost} if lost else {}
