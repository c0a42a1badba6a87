"""Packing: pictures are read and decoded once, into the shards of a packed set, going on where it was stopped."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ConfigDict

from vae_dist.atomic_files import replace_file
from vae_dist.config import Split
from vae_dist.data.packs.decoding import Chunk, Decoder
from vae_dist.data.packs.files import PictureFile
from vae_dist.data.packs.manifest import (
    FORMAT,
    LARGEST_MANIFEST,
    MANIFEST,
    MOST_LEFT_OUT,
    MOST_SHARDS,
    Manifest,
    Part,
    Shard,
)
from vae_dist.data.packs.shards import write_shard
from vae_dist.data.packs.stores import Store
from vae_dist.data.progress import Progress
from vae_dist.data.remarks import Remarks
from vae_dist.errors import UserError
from vae_dist.json_files import read_bounded

Files = Mapping[Split, Sequence[PictureFile]]


class ShardReport(Part):
    """The result of packing one shard's files, kept beside the shard until all are packed."""

    model_config = ConfigDict(allow_inf_nan=True, ser_json_inf_nan="strings")  # remarks begin at infinity

    key: str  # of the whole set
    shard: Shard | None  # None where no file could be read
    grey: bool
    left_out: dict[str, str]
    remarks: Remarks


class _Tally:
    """Counts pictures that are done."""

    def __init__(self, total: int, on_progress: Progress) -> None:
        self._done, self._total, self._on_progress = 0, total, on_progress

    def add(self, count: int) -> None:
        self._done += count
        self._on_progress(self._done, self._total)


class Place(NamedTuple):
    """A shard to be made."""

    path: Path
    files: Sequence[PictureFile]


def pack(files: Files, store: Store[Any], out: Path, *, shard_bytes: int, on_progress: Progress) -> Manifest:
    """Read pictures into shards, and write the manifest last.

    What an earlier call with the same files and store has finished is kept.

    Args:
        files: of each split, in order.
        store: what is held of them.
        out: folder of the packed set.
        shard_bytes: of pixels or files in a shard.
        on_progress: called after every few pictures.

    Raises:
        UserError: a split has no picture that can be read, or the disk can't be written.
    """
    for unfinished in out.glob(".*.tmp-*"):  # of processes that were killed
        unfinished.unlink()
    places, key = _places(out, files, store, shard_bytes), key_of(files, store, shard_bytes)
    tally = _Tally(sum(map(len, files.values())), on_progress)
    reports = iter(_pack_shards(list(chain(*places.values())), key, store, tally))
    manifest = _manifest({split: list(islice(reports, len(part))) for split, part in places.items()}, key, store)
    replace_file(out / MANIFEST, manifest.model_dump_json(indent=1).encode())
    for report_file in out.glob("*-?????.json"):
        report_file.unlink(missing_ok=True)  # another process may have packed the same
    return manifest


def key_of(files: Files, store: Store[Any], shard_bytes: int) -> str:
    """Return a digest of the files' names, sizes and times, and of what is held of them."""
    listed = {split: [(file.name, file.size, file.changed) for file in part] for split, part in files.items()}
    content = json.dumps([FORMAT, shard_bytes, store.key, listed])
    return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()[:32]


def _places(out: Path, files: Files, store: Store[Any], shard_bytes: int) -> dict[Split, list[Place]]:
    places = {
        split: [
            Place(out / f"{split}-{number:05d}.safetensors", part)
            for number, part in enumerate(store.shards(of_split, shard_bytes))
        ]
        for split, of_split in files.items()
    }
    if max(map(len, places.values())) > MOST_SHARDS:
        raise UserError(f"A split would have more than {MOST_SHARDS:,} files: put more pictures into each.")
    return places


def _pack_shards(places: Sequence[Place], key: str, store: Store[Any], tally: _Tally) -> list[ShardReport]:
    """Pack the shards that aren't finished: each is written in a thread while the next one is decoded."""
    finished = [_finished(place, key, tally) for place in places]
    with Decoder(store.process) as decode, ThreadPoolExecutor(1) as thread:
        written: list[Future[ShardReport]] = []
        for place, report in zip(places, finished, strict=True):
            if report is None:
                chunks = _decode_shard(place, decode, tally)
                if written:
                    written[-1].result()  # before memory is taken for another
                written.append(thread.submit(_write_shard, place, key, store, chunks))
    rest = iter(written)
    return [report or next(rest).result() for report in finished]


def _decode_shard(place: Place, decode: Decoder[Chunk[Any]], tally: _Tally) -> list[Chunk[Any]]:
    chunks: list[Chunk[Any]] = []
    for chunk in decode(place.files):
        chunks.append(chunk)
        tally.add(len(chunk.names) + len(chunk.left_out))
    return chunks


def _write_shard(place: Place, key: str, store: Store[Any], chunks: list[Chunk[Any]]) -> ShardReport:
    """Write the shard of some chunks, which are used up, and then its report."""
    names = [name for chunk in chunks for name in chunk.names]
    left_out = {_as_text(name): _as_text(why) for chunk in chunks for name, why in chunk.left_out.items()}
    grey = all(chunk.grey for chunk in chunks)
    tensors = store.tensors([chunk.content for chunk in chunks], grey=grey) if names else {}
    remarks = sum((chunk.remarks for chunk in chunks), Remarks())
    chunks.clear()  # memory for the next copy of them
    shard = write_shard(place.path, tensors, names) if names else None
    report = ShardReport(key=key, shard=shard, grey=grey, left_out=left_out, remarks=remarks)
    replace_file(place.path.with_suffix(".json"), report.model_dump_json().encode(), sync=False)
    return report


def _finished(place: Place, key: str, tally: _Tally) -> ShardReport | None:
    """Return the report of a shard that an earlier call has finished."""
    try:
        report = ShardReport.model_validate_json(read_bounded(place.path.with_suffix(".json"), LARGEST_MANIFEST))
        if report.key != key or (report.shard and place.path.stat().st_size != report.shard.size):
            return None
    except (OSError, ValueError):  # pydantic's is one
        return None
    tally.add(len(place.files))
    return report


def _manifest(reports: Mapping[Split, Sequence[ShardReport]], key: str, store: Store[Any]) -> Manifest:
    everything = [report for of_split in reports.values() for report in of_split]
    remarks = sum((report.remarks for report in everything), Remarks())
    left_out = {name: problem for report in everything for name, problem in report.left_out.items()}
    if len(left_out) > MOST_LEFT_OUT:
        raise UserError(f"{len(left_out):,} pictures can't be used, as {next(iter(left_out.values()))}")
    shards = {split: tuple(report.shard for report in part if report.shard) for split, part in reports.items()}
    for split, part in shards.items():
        if not part:
            raise UserError(f"None of the pictures of {split} can be read: {_first_problem(reports[split])}")
    return Manifest(
        store=store.storage,
        key=key,
        channels=1 if all(report.grey for report in everything) else 3,
        fit=store.fit,
        levels=store.levels,
        splits=shards,
        left_out=left_out,
        notes=store.notes(remarks, sum(shard.count for part in shards.values() for shard in part)),
    )


def _as_text(name: str) -> str:
    """Return a name that JSON can hold: those on a disk may be no UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _first_problem(reports: Sequence[ShardReport]) -> str:
    return next(problem for report in reports for problem in report.left_out.values())
