"""Checkpoints on the Hugging Face Hub: hf://owner/name, or hf://owner/name@revision.

JSON comes first, then the safetensors beside the manifest: nothing else is fetched. What the cache of the Hub holds
already is read without a network.
"""

import re
from pathlib import Path
from typing import NamedTuple, Self

from vae_dist.checkpoint.format import MANIFEST
from vae_dist.errors import UsageError, UserError
from vae_dist.printable import printable

REPOSITORY = r"[\w-][\w.-]*/[\w-][\w.-]*"
PATTERN = re.compile(rf"hf:/+(?P<name>{REPOSITORY})(?:@(?P<revision>[\w-][\w./-]*))?")  # a path drops the second slash
FOLDERS = "*/*"  # what lies in folders is for other programs


class HubAddress(NamedTuple):
    """A repository on the Hub, at a revision."""

    name: str  # owner/name
    revision: str | None  # branch, tag or commit; None: the main branch

    def __str__(self) -> str:
        return f"hf://{self.name}" + (f"@{self.revision}" if self.revision else "")

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """Read an address that was given in place of a folder; None for a folder.

        Raises:
            UsageError: it is an address of the Hub, and of no repository.
        """
        if not str(path).startswith("hf:/"):
            return None
        match = PATTERN.fullmatch(str(path))
        if match is None:
            given = re.sub("^hf:/+", "hf://", printable(str(path), 200))
            raise UsageError(
                f"{given} is no address of a repository: write hf://owner/name, or hf://owner/name@revision."
            )
        return cls(match["name"], match["revision"])


def fetch_checkpoint(address: HubAddress) -> Path:
    """Return the folder in the Hub's cache with the files of a checkpoint, fetching those that aren't there.

    Raises:
        UserError: there is no such repository or revision, it holds no checkpoint of ours, or there is no network.
    """
    folder = _snapshot(address, "*.json")
    if not (folder / MANIFEST).is_file():
        raise UserError(
            f"{address} holds no checkpoint of vae-dist: it has no {MANIFEST}. "
            "Pickles (.bin, .pt, .ckpt), which can run code as they are opened, are never read."
        )
    return _snapshot(address._replace(revision=folder.name), "*.safetensors")  # of the same commit


def _snapshot(address: HubAddress, pattern: str) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(
            snapshot_download(address.name, revision=address.revision, allow_patterns=pattern, ignore_patterns=FOLDERS)
        )
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{address.name} on the Hub has no revision {address.revision}.") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"The Hub shows no repository {address.name}: it has another name, or is private and needs a token "
            "(`hf auth login`, or HF_TOKEN)."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise UserError(
            f"{address} isn't in the cache of the Hugging Face Hub, and the Hub can't be reached "
            f"({type(error.__cause__ or error).__name__})."
        ) from error
    except Exception as error:  # of the network, of the Hub and of the disk
        reason = printable(str(error).partition("\n")[0], 200)
        raise UserError(f"{address} can't be fetched ({type(error).__name__}: {reason}).") from error
