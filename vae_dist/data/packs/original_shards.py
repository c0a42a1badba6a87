"""A shard of original files, as the list of what it holds."""

from pathlib import Path

from jaxtyping import Int64
from safetensors import safe_open
from torch import Tensor

from vae_dist.data.archives.entry import LARGEST_FILE
from vae_dist.data.packs.manifest import REPAIR, Shard
from vae_dist.data.packs.originals import Original
from vae_dist.data.packs.shards import Header, read_header
from vae_dist.errors import UserError

TABLES = ("offsets", "sizes", "crc32", "name_offsets")


class StoredOriginals:
    """The files in a shard: where each begins, its name and its checksum.

    Args:
        path: of the shard.
        record: of the manifest.

    Attributes:
        sizes: height and width of every picture (n, 2).

    Raises:
        UserError: the shard isn't what the manifest says.
    """

    def __init__(self, path: Path, record: Shard) -> None:
        self._path = str(path.absolute())  # is opened by other processes
        header = read_header(path, record)
        if not _lists(header, record.count):
            raise UserError(f"{path} holds no files as its manifest lists them: {REPAIR}.")
        self._start = header.starts["bytes"]
        with safe_open(path, framework="pt") as file:
            tables = [file.get_tensor(name).clone() for name in TABLES]
            self._names = file.get_tensor("names").numpy().tobytes()
        self._offsets, self.sizes, self._crc32, self._name_offsets = tables
        ends = header.shapes["bytes"][0], len(self._names)
        if not all(map(divides, (self._offsets, self._name_offsets), ends)):
            raise UserError(f"{path} lists files that it doesn't hold: {REPAIR}.")
        if self._offsets.diff().max() > LARGEST_FILE:
            raise UserError(f"{path} lists a file of more than {LARGEST_FILE:,} bytes: {REPAIR}.")
        if self.sizes.min() < 1:
            raise UserError(f"{path} lists a picture without pixels: {REPAIR}.")

    def __len__(self) -> int:
        return len(self.sizes)

    def files(self, indices: Int64[Tensor, " n"]) -> list[Original]:
        """Return some files."""
        columns = (
            self._between(self._name_offsets, indices),
            self._between(self._offsets, indices),
            self._crc32.index_select(0, indices).tolist(),
        )
        return [
            Original(
                self._names[name:name_end].decode(errors="surrogateescape"),
                self._path,
                self._start + first,
                end - first,
                crc32,
            )
            for (name, name_end), (first, end), crc32 in zip(*columns, strict=True)
        ]

    @staticmethod
    def _between(offsets: Int64[Tensor, " m"], indices: Int64[Tensor, " n"]) -> list[tuple[int, int]]:
        return list(zip(offsets[indices].tolist(), offsets[indices + 1].tolist(), strict=True))


def _lists(header: Header, count: int) -> bool:
    """Return whether a shard has the tensors that so many files need."""
    expected = {"offsets": (count + 1,), "sizes": (count, 2), "crc32": (count,), "name_offsets": (count + 1,)}
    shapes, dtypes = header.shapes, header.dtypes
    return (
        all(shapes.get(name) == shape and dtypes[name] == "I64" for name, shape in expected.items())
        and all(len(shapes.get(name, ())) == 1 and dtypes[name] == "U8" for name in ("bytes", "names"))
    )  # fmt: skip


def divides(offsets: Int64[Tensor, " n"], end: int) -> bool:
    """Return whether offsets go from 0 to the end, none before the last one."""
    return int(offsets[0]) == 0 and int(offsets[-1]) == end and bool((offsets.diff() >= 0).all())
