"""Decoding on all cores, in processes of their own: threads would wait for one another where pictures are small."""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process
from types import TracebackType
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8

from vae_dist.data.fitting import Rule
from vae_dist.data.packs.files import PictureFile
from vae_dist.data.pictures import decode_picture
from vae_dist.data.remarks import Remarks
from vae_dist.errors import UserError

CHUNK_FILES, CHUNK_BYTES = 128, 1 << 20  # of files that a process decodes in one go; the smaller of the two
OTHER_SIZE = "pixels, and others have"
FEW = 2 * CHUNK_FILES  # files and fewer are decoded here: starting processes would take longer
Result = TypeVar("Result")


class Picture(NamedTuple):
    """A decoded picture, or why there is none."""

    pixels: UInt8[np.ndarray, "c h w"] | None  # with one channel if it is grey
    remarks: Remarks
    problem: str = ""


class Decoder(Generic[Result]):
    """Decodes pictures in processes that are started when they are needed, and end with the block.

    Args:
        decode: what is done with each file: a function that can be sent to another process.
    """

    def __init__(self, decode: Callable[[PictureFile], Result]) -> None:
        self._decode = decode
        self._pool: ProcessPoolExecutor | None = None
        # A signal raises in the main thread alone: a process that is half started then would show a traceback.
        self._starter = ThreadPoolExecutor(1)
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def __enter__(self) -> "Decoder[Result]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._starter.shutdown()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)  # waits for a mebibyte of files a process

    def __call__(self, files: Sequence[PictureFile]) -> Iterator[Result]:
        """Decode files, in their order.

        Raises:
            UserError: a process was ended while it decoded.
        """
        if self._pool is None and (len(files) <= FEW or self._cores == 1):
            for file in files:
                yield self._decode(file)
            return
        waiting: deque[tuple[Sequence[PictureFile], Future[list[Result]]]] = deque()
        for chunk in _chunks(files):
            waiting.append((chunk, self._starter.submit(self._submit, chunk).result()))
            if len(waiting) > 2 * self._cores:
                yield from _result(*waiting.popleft())
        while waiting:
            yield from _result(*waiting.popleft())

    def _submit(self, chunk: Sequence[PictureFile]) -> Future[list[Result]]:
        if self._pool is None:
            context = get_context("forkserver")  # a fork of this process would inherit torch's threads half
            context.set_forkserver_preload([__name__])
            self._pool = ProcessPoolExecutor(self._cores, context, initializer=_begin)
        return self._pool.submit(_decode_chunk, chunk, self._decode)


def _chunks(files: Iterable[PictureFile]) -> Iterator[list[PictureFile]]:
    files = iter(files)
    while chunk := list(islice(files, 1)):
        size = chunk[0].size
        while size < CHUNK_BYTES and len(chunk) < CHUNK_FILES and (more := next(files, None)) is not None:
            chunk.append(more)
            size += more.size
        yield chunk


def _result(chunk: Sequence[PictureFile], future: Future[list[Result]]) -> list[Result]:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise UserError(
            f"A process was ended while it decoded {chunk[0].name} to {chunk[-1].name} ({len(chunk)} pictures): "
            "memory may have run out. Start again; packing goes on with what is finished."
        ) from error


def _begin() -> None:
    """Leave Ctrl-C to the process that packs, and end with it whatever ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _decode_chunk(files: Sequence[PictureFile], decode: Callable[[PictureFile], Result]) -> list[Result]:
    return [decode(file) for file in files]


def decode_to_fit(rule: Rule, file: PictureFile) -> Picture:
    """Decode a file and make it fit."""
    try:
        decoded = decode_picture(file.open(), rule, name=file.name)
    except (UserError, OSError) as error:
        return Picture(None, Remarks(), str(error))
    if not rule.resize and decoded.size != (rule.width, rule.height):
        width, height = decoded.size
        return Picture(None, Remarks(), f"{width} × {height} {OTHER_SIZE} {rule.width} × {rule.height}")
    grey = bool((decoded.pixels == decoded.pixels[:1]).all())
    return Picture(decoded.pixels[:1] if grey else decoded.pixels, decoded.remarks)
