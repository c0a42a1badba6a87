"""The format of a packed set.

OUT/
    train-00000.safetensors  train-00001.safetensors  val-00000.safetensors …   the shards of each split, in order
    manifest.json                                                               written last

A shard holds `pixels` (n, c, h, w), or for originals `bytes`, `offsets` (n + 1) into them and `sizes` (n, 2), which are
heights and widths; beside these `names` and `name_offsets`, and `crc32` (n) of each picture. A grey shard of pixels has
one channel, also where the set is in colour.
"""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from vae_dist.config import Split
from vae_dist.config.data import Levels
from vae_dist.data.digests import digest_of
from vae_dist.data.fitting import Rule
from vae_dist.errors import UserError
from vae_dist.json_files import read_bounded

FORMAT: Literal[1] = 1
MANIFEST = "manifest.json"
LARGEST_MANIFEST = 1 << 28  # bytes; a million pictures left out are named in half of it
MOST_COMMAS = 1 << 22  # in it, which bound its entries before memory is taken for them
MOST_LEFT_OUT = 1 << 21  # pictures
MOST_SHARDS = 99_999  # of a split: their names have five digits
REPAIR = (
    "pack the pictures again (`vae-dist data clear-cache` first, if this is in the cache), or copy the set again from "
    "where it is whole"
)
Storage = Literal["pixels", "original"]
Number = Annotated[int, Field(ge=0, lt=2**48)]
NoteName = Annotated[str, Field(pattern="^(levels|cropped|enlarged)$")]  # is shown as it is
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Part(BaseModel):
    """A part of the manifest: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Shard(Part):
    """A file of a split."""

    file: Annotated[str, Field(pattern=r"^(train|val|test)-\d{5}\.safetensors$")]
    count: Annotated[Number, Field(gt=0)]  # of its pictures
    size: Number  # bytes of the file
    sha256: Digest


class Manifest(Part):
    """The contents of a packed set and the settings that it was made with."""

    format: Literal[1] = FORMAT
    store: Storage
    key: str  # of the files that were packed, and of how
    channels: Literal[1, 3]  # 1 if every picture is grey
    fit: Rule | None = None  # by which pictures became pixels; None for original files
    levels: Levels | None = None  # values that become 0 and 255 when original files are decoded
    splits: dict[Split, Annotated[tuple[Shard, ...], Field(min_length=1, max_length=MOST_SHARDS)]]
    left_out: dict[str, str] = Field({}, max_length=MOST_LEFT_OUT)  # pictures that couldn't be read, with the reason
    notes: dict[NoteName, str] = {}  # that are shown when a run on the set begins

    @model_validator(mode="after")
    def _shards_agree(self) -> "Manifest":
        if "train" not in self.splits:
            raise ValueError("there is no train split")
        if (self.store == "original") != (self.fit is None):
            raise ValueError("pixels were made to fit, and original files are as they were")
        for split, shards in self.splits.items():
            names = [shard.file for shard in shards]
            if any(not name.startswith(f"{split}-") for name in names) or any(a >= b for a, b in pairwise(names)):
                raise ValueError(f"the shards of {split} are of another split, out of order, or there twice")
        return self

    def digest(self, split: Split) -> str:
        """Return a digest of a split's shards, by which a resumed run recognises its data without reading them."""
        return digest_of([shard.sha256 for shard in self.splits[split]])


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a packed set.

    Raises:
        UserError: there is none, it is damaged, or of another version.
    """
    path = folder / MANIFEST
    try:
        content = read_bounded(path, LARGEST_MANIFEST)
        if content.count(b",") > MOST_COMMAS:
            raise UserError(f"{path} has too many entries for a manifest: {REPAIR}.")
        return Manifest.model_validate_json(content)
    except FileNotFoundError as error:
        raise UserError(f"{folder} is no packed set: it has no {MANIFEST}.") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder: {REPAIR}.") from error
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(map(str, detail["loc"])) or "it"
        raise UserError(f"{path} can't be used ({where}: {detail['msg']}): {REPAIR}.") from error
    except ValueError as error:
        raise UserError(f"{path} can't be used ({error}): {REPAIR}.") from error
