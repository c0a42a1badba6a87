"""Format the facts that `vae-dist data inspect` prints about a folder of pictures or a packed set."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

from vae_dist.data.look import Look
from vae_dist.data.packs.dataset import PackedDataset
from vae_dist.data.remarks import Remarks
from vae_dist.data.splits import val_size_of_pictures
from vae_dist.data.survey import Survey

MOST_NAMED = 10  # of the pictures that can't be read


def facts_of_folder(survey: Survey) -> dict[str, str]:
    """Describe the pictures below a folder."""
    readable, problems = survey.readable, survey.problems
    files = [file for of_split in survey.pictures.files.values() for file in of_split]
    counts: dict[str, int] = {split: sum(not look.problem for look in of) for split, of in survey.looks.items()}
    facts = {
        "pictures": survey.pictures.origin,
        "splits": _splits(counts),
        "bytes": f"{sum(file.size for file in files):,}",
    }
    if readable:
        facts |= {
            "formats": _counted(look.file_format for look in readable),
            "sizes": _sizes((look.width, look.height) for look in readable),
            "shapes": _counted(_shape(look) for look in readable),
            "modes": _counted(look.mode for look in readable),
            "grey": _greyness(survey),
        }
    levels = sum((look.remarks for look in readable), Remarks()).in_words()
    return facts | ({"levels": levels} if levels else {}) | ({"can't be read": _named(problems)} if problems else {})


def facts_of_pack(dataset: PackedDataset) -> dict[str, str]:
    """Describe a packed set whose files are as they were written."""
    manifest = dataset.manifest
    shards = [shard for of_split in manifest.splits.values() for shard in of_split]
    problems = [f"{name}: {why}" for name, why in manifest.left_out.items()]
    return {
        "packed set": dataset.origin,
        "splits": _splits({split: dataset.size(split) for split in dataset.splits}),
        "images": f"{_images(dataset)}, {'grey' if manifest.channels == 1 else 'in colour'}",
        "shards": f"{len(shards):,} of {sum(shard.size for shard in shards):,} bytes, all as they were written",
        **({"left out": _named(problems)} if problems else {}),
        **manifest.notes,
    }


def _images(dataset: PackedDataset) -> str:
    if dataset.manifest.store == "original":
        return f"original files, {_sizes((width, height) for height, width in dataset.original_sizes)}"
    _, height, width = dataset.image_shape
    return f"{height} × {width} (height × width)"


def origin_of_sheet(pictures: Path) -> dict[str, str]:
    """Return the metadata of a contact sheet."""
    from vae_dist import __version__

    return {"Software": f"vae-dist {__version__}", "command": "vae-dist data inspect", "pictures": ascii(str(pictures))}


def _splits(counts: Mapping[str, int]) -> str:
    named = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    held_out = val_size_of_pictures({split: range(count) for split, count in counts.items()})
    return named + (f", of which {held_out:,} are held out as val (data.val_size)" if held_out else "")


def _sizes(widths_and_heights: Iterable[tuple[int, int]]) -> str:
    sizes = sorted(widths_and_heights, key=lambda size: (size[0] * size[1], size))
    if sizes[0] == sizes[-1]:
        return f"all {_size(*sizes[0])} (width × height)"
    smallest, median, largest = (_size(*sizes[place]) for place in (0, (len(sizes) - 1) // 2, -1))
    distinct = f"{len(set(sizes)):,} distinct"
    return f"smallest {smallest}, median {median}, largest {largest} (width × height); {distinct}"


def _size(width: int, height: int) -> str:
    return f"{width:,} × {height:,}"


def _shape(look: Look) -> str:
    if look.width == look.height:
        return "square"
    return "portrait" if look.width < look.height else "landscape"


def _greyness(survey: Survey) -> str:
    grey = sum(look.is_grey for look in survey.readable)
    channels = "one channel" if survey.is_grey else "three channels"
    return f"{grey:,} of {len(survey.readable):,} in truth, however they are saved: a model of them gets {channels}"


def _counted(words: Iterable[str]) -> str:
    return ", ".join(f"{word} {count:,}" for word, count in Counter(words).most_common())


def _named(problems: Sequence[str]) -> str:
    more = [f"… and {len(problems) - MOST_NAMED:,} more"] if len(problems) > MOST_NAMED else []
    return "\n".join([f"{len(problems):,}", *islice(problems, MOST_NAMED), *more])
