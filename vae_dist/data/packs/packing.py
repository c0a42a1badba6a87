"""Packing: pictures are decoded once, into the shards of a packed set, going on where it was stopped."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import ConfigDict

from vae_dist.atomic_files import replace_file
from vae_dist.config import Split
from vae_dist.data.fitting import Rule
from vae_dist.data.packs.decoding import Decoder, Picture, decode_to_fit
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


def pack(files: Files, rule: Rule, out: Path, *, shard_bytes: int, on_progress: Progress) -> Manifest:
    """Decode pictures into shards, and write the manifest last.

    What an earlier call with the same files and rule has finished is kept.

    Args:
        files: of each split, in order.
        rule: how pictures are made to fit.
        out: folder of the packed set.
        shard_bytes: of pixels in a shard.
        on_progress: called after every picture.

    Raises:
        UserError: a split has no picture that can be read, or the disk can't be written.
    """
    for unfinished in out.glob(".*.tmp-*"):  # of processes that were killed
        unfinished.unlink()
    key = key_of(files, rule, shard_bytes)
    tally = _Tally(sum(map(len, files.values())), on_progress)
    per_shard = max(1, shard_bytes // (3 * rule.height * rule.width))
    if max(map(len, files.values())) > MOST_SHARDS * per_shard:
        raise UserError(f"A split would have more than {MOST_SHARDS:,} files: put more pictures into each.")
    with Decoder(partial(decode_to_fit, rule)) as decode:
        reports = {
            split: [_finished(place, key, tally) or _pack_shard(place, key, rule, decode, tally) for place in places]
            for split, places in _places(out, files, per_shard).items()
        }
    manifest = _manifest(reports, key, rule)
    replace_file(out / MANIFEST, manifest.model_dump_json(indent=1).encode())
    for report_file in out.glob("*-?????.json"):
        report_file.unlink(missing_ok=True)  # another process may have packed the same
    return manifest


def key_of(files: Files, rule: Rule, shard_bytes: int) -> str:
    """Return a digest of the files' names, sizes and times, and of the rule that fits them."""
    listed = {split: [(file.name, file.size, file.changed) for file in part] for split, part in files.items()}
    content = json.dumps([FORMAT, shard_bytes, rule.model_dump(), listed])
    return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()[:32]


def _places(out: Path, files: Files, per_shard: int) -> dict[Split, list[Place]]:
    return {
        split: [
            Place(out / f"{split}-{number:05d}.safetensors", part[start : start + per_shard])
            for number, start in enumerate(range(0, len(part), per_shard))
        ]
        for split, part in files.items()
    }


def _pack_shard(place: Place, key: str, rule: Rule, decode: Decoder[Picture], tally: _Tally) -> ShardReport:
    pixels = torch.empty(len(place.files), 3, rule.height, rule.width, dtype=torch.uint8)
    names: list[str] = []
    left_out: dict[str, str] = {}
    remarks, grey = Remarks(), True
    for file, picture in zip(place.files, decode(place.files), strict=True):
        if picture.pixels is None:
            left_out[_as_text(file.name)] = _as_text(picture.problem)
        else:
            pixels[len(names)] = torch.from_numpy(picture.pixels)  # grey goes into all three channels
            names.append(file.name)
            grey &= len(picture.pixels) == 1
            remarks += picture.remarks
        tally.add(1)
    pixels = pixels[: len(names), : 1 if grey else 3].contiguous()
    shard = write_shard(place.path, {"pixels": pixels}, names) if names else None
    report = ShardReport(key=key, shard=shard, grey=grey, left_out=left_out, remarks=remarks)
    replace_file(place.path.with_suffix(".json"), report.model_dump_json().encode())
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


def _manifest(reports: Mapping[Split, Sequence[ShardReport]], key: str, rule: Rule) -> Manifest:
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
        store="pixels",
        key=key,
        channels=1 if all(report.grey for report in everything) else 3,
        fit=rule,
        splits=shards,
        left_out=left_out,
        notes=remarks.notes(sum(shard.count for part in shards.values() for shard in part), rule.height, rule.width),
    )


def _as_text(name: str) -> str:
    """Return a name that JSON can hold: those on a disk may be no UTF-8."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _first_problem(reports: Sequence[ShardReport]) -> str:
    return next(problem for report in reports for problem in report.left_out.values())
