"""Decoding on all cores: in threads where large pictures are few, in processes of their own where pictures are many."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, takewhile
from threading import Event
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import UInt8

from vae_dist.data.fitting import Rule, is_grey
from vae_dist.data.packs.files import PictureFile
from vae_dist.data.packs.workers import Workers
from vae_dist.data.pictures import PILLOW_IS_QUIET, decode_picture
from vae_dist.data.remarks import Remarks
from vae_dist.distributed.cores import usable_cores
from vae_dist.errors import UserError

CHUNK_FILES, CHUNK_BYTES = 128, 1 << 18  # of files that are decoded in one go; the smaller of the two
OTHER_SIZE = "pixels, and others have"
FEW = 1024  # files and fewer are decoded in this process: others take a second to start
LARGE = 1 << 14  # bytes on average: of smaller pictures threads would mostly wait for one another
Content = TypeVar("Content")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Chunk(Generic[Content]):
    """The results of decoding a few files."""

    content: Content  # of those that could be read
    names: list[str]  # of the same
    grey: bool  # all of them
    remarks: Remarks
    left_out: dict[str, str]  # those that couldn't be read, with the reason


class Decoder(Generic[Result]):
    """Decodes pictures in threads or processes that are started when they are needed, and end with the block.

    Args:
        decode: what is done with a few files: a function that can be sent to another process.
    """

    def __init__(self, decode: Callable[[Iterable[PictureFile]], Result]) -> None:
        self._decode = decode
        self._cores = usable_cores()
        self._workers = Workers(decode, self._cores)
        self._threads, self._is_closed = ThreadPoolExecutor(self._cores), Event()
        self._in_processes = False

    def __enter__(self) -> "Decoder[Result]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closed.set()
        self._workers.close()
        self._threads.shutdown(cancel_futures=True)

    def __call__(self, files: Sequence[PictureFile]) -> Iterator[Result]:
        """Decode files, and yield the result of every few of them, in their order.

        Raises:
            UserError: a process was ended while it decoded.
        """
        self._in_processes |= len(files) > FEW and self._cores > 1
        if not self._in_processes and sum(file.size for file in files) < LARGE * len(files):
            yield from map(self._decode, _chunks(files))
            return
        submit = self._workers.submit if self._in_processes else self._submit_to_thread
        waiting: deque[Future[Result]] = deque()
        for chunk in _chunks(files):
            waiting.append(submit(chunk))
            if len(waiting) > 2 * self._cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _submit_to_thread(self, files: Sequence[PictureFile]) -> Future[Result]:
        return self._threads.submit(self._decode, takewhile(self._is_open, files))

    def _is_open(self, _: PictureFile) -> bool:
        """Return whether results are still wanted: a thread can't be ended in the middle of its work."""
        return not self._is_closed.is_set()


def _chunks(files: Iterable[PictureFile]) -> Iterator[list[PictureFile]]:
    files = iter(files)
    while chunk := list(islice(files, 1)):
        size = chunk[0].size
        while size < CHUNK_BYTES and len(chunk) < CHUNK_FILES and (more := next(files, None)) is not None:
            chunk.append(more)
            size += more.size
        yield chunk


@PILLOW_IS_QUIET
def decode_to_fit(rule: Rule, files: Iterable[PictureFile]) -> Chunk[UInt8[np.ndarray, "n c h w"]]:
    """Decode files and make them fit; the pixels have one channel if all are grey."""
    pixels: list[UInt8[np.ndarray, "3 h w"]] = []
    names, left_out, remarks = [], {}, Remarks()
    for file in files:
        try:
            decoded = decode_picture(file.open(), rule, name=file.name)
        except UserError as error:
            left_out[file.name] = str(error)
            continue
        if not rule.resize and decoded.size != (rule.width, rule.height):
            width, height = decoded.size
            left_out[file.name] = f"{width} × {height} {OTHER_SIZE} {rule.width} × {rule.height}"
            continue
        pixels.append(decoded.pixels)
        names.append(file.name)
        remarks += decoded.remarks
    stacked = np.stack(pixels) if pixels else np.empty((0, 3, rule.height, rule.width), np.uint8)
    grey = is_grey(stacked.swapaxes(0, 1))
    return Chunk(stacked[:, : 1 if grey else 3], names, grey, remarks, left_out)
