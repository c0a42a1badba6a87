"""The configs that come with the package, and finding one by its name or a path."""

import difflib
import re
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path

from vae_dist.config.aliases import listed, nearest
from vae_dist.config.schema import all_kinds
from vae_dist.errors import UsageError

DEFAULT_CONFIG = "quickstart"
SHIPPED_CONFIGS = Path(__file__).parent.parent / "configs"  # a checkout has it at its top level too, as a link
PURPOSES = {  # and how the names of their configs begin
    "To begin with": ("quickstart", "mnist-mlp"),
    "Your own pictures": ("folder",),
    "Likelihoods of digits and clothes": ("mnist", "fashion"),
    "A published table": ("iwae-table",),
    "Autoencoders for latent diffusion": ("patch", "kl"),
}
OWN_PICTURES = "vae-dist train folder-10min --set data.root=FOLDER"


def shipped_configs() -> dict[str, Path]:
    """Return the name and path of every config that comes with the package."""
    return {path.stem: path for path in sorted(SHIPPED_CONFIGS.glob("*.yaml"))}


def configs_by_purpose() -> dict[str, dict[str, Path]]:
    """Return the shipped configs under the purposes that they serve."""
    found: dict[str, dict[str, Path]] = {purpose: {} for purpose in PURPOSES}
    for name, path in shipped_configs().items():
        purpose = next(purpose for purpose, beginnings in PURPOSES.items() if name.startswith(beginnings))
        found[purpose][name] = path
    return found


def summary_of(path: Path) -> str:
    """Return the first sentence of the comment at a config's top."""
    comment = takewhile(lambda line: line.startswith("#"), path.read_text("utf-8").splitlines())
    text = " ".join(line.removeprefix("#").strip() for line in comment)
    return re.split(r"(?<=[.:;]) ", text)[0].rstrip(".:;")


def find_config(name_or_path: str) -> Path:
    """Return the file meant by a shipped config's name or a path.

    Raises:
        UsageError: there is neither.
    """
    shipped = shipped_configs()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.is_file():
        return path
    raise UsageError(f"There is no config {name_or_path!r}{_what_there_is(path, shipped)}")


def _what_there_is(path: Path, shipped: Mapping[str, Path]) -> str:
    """Return what could be meant by the name of a config that there isn't, or else what there is."""
    if (path / "config.yaml").is_file():
        return f": it is a run, and `train {path / 'config.yaml'} --out {path}` goes on with it."
    if path.is_dir():
        return f": it is a folder. For pictures in it, {OWN_PICTURES.replace('FOLDER', str(path))}."
    if path.exists():
        return ": it is a pipe or a device, and configs are read from plain files."
    if "=" in path.name:
        return f"; did you mean --set {path}?"
    if meant := _similar_configs(path, shipped):
        return f"; did you mean {listed(meant)}? `vae-dist configs` describes the shipped ones."
    if sections := [section for section, kinds in all_kinds().items() if path.name in kinds]:
        return f"; did you mean --set {sections[0]}={path.name}?"
    return f": no such file, and the shipped ones are {', '.join(shipped)}. For pictures of your own, {OWN_PICTURES}."


def _similar_configs(path: Path, shipped: Mapping[str, Path]) -> list[str]:
    """Return the names of shipped configs, or of one of them or one beside `path`, that are like its name."""
    name = path.stem.lower()
    if begun := [known for known in shipped if name and known.startswith(name)]:
        return begun
    beside = [str(file) for file in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    known = {**dict.fromkeys(beside), **shipped}
    if close := difflib.get_close_matches(str(path), known, n=1, cutoff=0.7):
        return close
    family = nearest(name, list({known.partition("-")[0] for known in shipped}))
    return [known for known in shipped if family and known.startswith(family)]
