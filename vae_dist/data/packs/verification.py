"""Whether all files of a packed set are as they were written."""

from pathlib import Path

from vae_dist.data.packs.manifest import Manifest
from vae_dist.data.packs.shards import check_shard
from vae_dist.data.progress import Progress
from vae_dist.errors import UserError


def verify(folder: Path, manifest: Manifest, on_progress: Progress) -> None:
    """Read every shard of a packed set and compare it with its digest.

    Args:
        folder: of the set.
        manifest: of the set.
        on_progress: called after every shard.

    Raises:
        UserError: some are damaged or missing; all of them are named.
    """
    records = [record for of_split in manifest.splits.values() for record in of_split]
    total, done = sum(record.count for record in records), 0
    problems = []
    for record in records:
        path = folder / record.file
        try:
            check_shard(path, record)
        except UserError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{path} can't be read: {error.strerror}.")
        done += record.count
        on_progress(done, total)
    if problems:
        raise UserError("\n".join(problems))
