"""The cases: for each kind of file, how one is made, and what the program is told to do with it."""

import os
import random
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import typer
import yaml

from fuzzing.mutations import change_bytes, change_json, change_safetensors, change_yaml, sign, sign_pack
from fuzzing.samples import IDX_FILES, IMAGES, MODELS, SIDE, STEPS, config_of

Run = Callable[[], None]
VICTIM, PRECIOUS = "victim", b"not to be touched"


@dataclass(frozen=True)
class Case:
    """Files that were changed, in a folder, and what is done with them.

    Attributes:
        kind: of the file that was changed.
        folder: that the case may write in.
        description: of the change and the command.
        run: does it; called in a process of its own.
    """

    kind: str
    folder: Path
    description: str
    run: Run

    @classmethod
    def draw(cls, kind: str, seed: int, number: int, parent: Path) -> "Case":
        """Make a case; a seed and a number always give the same one."""
        rng = random.Random(f"{seed} {number}")
        folder = parent / f"{number:06d}-{kind}"
        folder.mkdir()
        (folder / VICTIM).write_bytes(PRECIOUS)
        description, run = KINDS[kind](folder, parent / "samples", rng)
        return cls(kind, folder, f"--seed {seed} --first {number}: {description}", run)

    def something_elsewhere_changed(self) -> bool:
        """Return whether the file beside the files of the case is another than before."""
        return (self.folder / VICTIM).read_bytes() != PRECIOUS


def checkpoint(folder: Path, samples: Path, rng: random.Random) -> tuple[str, Run]:
    """Change a file of a checkpoint, mostly with a manifest that matches, and use it."""
    run = samples / "runs" / rng.choice(list(MODELS))
    path = Path(shutil.copytree(run / "checkpoints" / f"step-{STEPS:08d}", folder / f"step-{STEPS:08d}"))
    what = _change_checkpoint(path, samples, rng)
    given = ["--checkpoint", str(path)]
    command = rng.choice(
        [["sample", "--n", "1", *given], ["info", *given], ["evaluate", "--k", "1", *given], ["reconstruct", *given]]
    )
    return f"{what}; vae-dist {' '.join(command)}", partial(_command, command)


def run_folder(folder: Path, samples: Path, rng: random.Random) -> tuple[str, Run]:
    """Change a file of a run, or put a link, a pipe or a folder in its place, and go on with it."""
    kind = rng.choice(list(MODELS))
    path = Path(shutil.copytree(samples / "runs" / kind, folder / "run"))
    names = ["config.yaml", "run.json", "status.json", "metrics.jsonl", "lock"]
    name = rng.choice([*names, "images", "checkpoints", f"checkpoints/step-{STEPS:08d}"])
    if rng.random() < 0.35:
        what = _put_in_place(path / name, folder / VICTIM, rng)
    elif name in names:
        what = _change_file(path / name, samples, rng)
    else:
        what = _change_checkpoint(path / "checkpoints" / f"step-{STEPS:08d}", samples, rng)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(config_of(kind, samples)))
    train = ["train", str(config), "--out", str(path), "--set", f"train.steps={STEPS + 1}"]
    command = rng.choice([train, train, train, ["sample", "--n", "1", "--checkpoint", str(path)]])
    if command is train and rng.random() < 0.3:
        return f"{what}; its metrics, status and provenance", partial(_read_run, path)
    return f"{what}; vae-dist {' '.join(command)}", partial(_command, command)


def config(folder: Path, samples: Path, rng: random.Random) -> tuple[str, Run]:
    """Change a config, or an override of one, and load it."""
    original = rng.choice(sorted((samples / "yaml").glob("*.yaml"))).read_bytes()
    changed = change_yaml(original, rng) if rng.random() < 0.7 else change_bytes(original, [original], rng)
    if rng.random() < 0.2:
        text = changed.decode(errors="replace")[:100_000]
        override = f"{rng.choice(['model', 'train.steps', 'optim.lr', 'data', text[:50]])}={text}"
        return "an override", partial(_load_config, samples / "yaml" / "quickstart.yaml", [override])
    (folder / "changed.yaml").write_bytes(changed)
    return "a config", partial(_load_config, folder / "changed.yaml", [])


def picture(folder: Path, samples: Path, rng: random.Random) -> tuple[str, Run]:
    """Change a picture, mostly with the suffix of another format, and reconstruct it or train on it."""
    name = rng.choice(list(IMAGES))
    suffix = Path(rng.choice(list(IMAGES))).suffix
    pictures = Path(shutil.copytree(samples / "set", folder / "set"))
    path = pictures / f"changed{suffix}"
    others = [(samples / "pictures" / other).read_bytes() for other in IMAGES]
    path.write_bytes(change_bytes((samples / "pictures" / name).read_bytes(), others, rng))
    if rng.random() < 0.3:
        return f"{name} as {suffix} in a set", partial(_load_data, {"name": "folder", "root": str(pictures), "size": 8})
    command = ["reconstruct", "--input", str(path), "--checkpoint", str(samples / "runs" / "mlp")]
    return f"{name}; vae-dist {' '.join(command)}", partial(_command, command)


def idx(folder: Path, samples: Path, rng: random.Random) -> tuple[str, Run]:
    """Change an IDX file, plain or compressed, and load the set or the file."""
    data = Path(shutil.copytree(samples / "idx", folder / "mnist"))
    packing = rng.choice(["", ".gz", ".xz"])
    path = data / f"{rng.choice(IDX_FILES)}{packing}"
    path.write_bytes(change_bytes(path.read_bytes(), [path.read_bytes()], rng))
    if packing == ".xz":
        return path.name, partial(_read_idx, path)
    for other in data.iterdir():
        if other.suffix != packing:
            other.unlink()
    return path.name, partial(_load_data, {"name": "mnist", "root": str(folder), "val_size": 2})


def npz(folder: Path, samples: Path, rng: random.Random) -> tuple[str, Run]:
    """Change the archive of a fixed draw, and load it."""
    data = Path(shutil.copytree(samples / "npz", folder / "binarized-mnist"))
    path = data / "binarized_mnist.npz"
    path.write_bytes(change_bytes(path.read_bytes(), [path.read_bytes()], rng))
    return path.name, partial(_load_data, {"name": "binarized-mnist", "root": str(folder)})


def packed(folder: Path, samples: Path, rng: random.Random) -> tuple[str, Run]:
    """Change a file of a packed set, mostly with a manifest that matches, or put something else in its place."""
    storage = rng.choice(["pixels", "original"])
    pack = Path(shutil.copytree(samples / storage, folder / "pack"))
    file = rng.choice(sorted(pack.iterdir()))
    if rng.random() < 0.2:
        what = _put_in_place(file, folder / VICTIM, rng)
    else:
        what = _change_file(file, samples, rng)
        if file.suffix == ".safetensors" and rng.random() < 0.8:
            sign_pack(pack)
            what += ", signed"
    resident = rng.choice(["on", "off"])
    section: dict[str, str | int] = {"name": "packed", "root": str(pack), "resident": resident}
    section |= {"size": SIDE, "workers": 0}
    return f"{storage}: {what}; {resident}", partial(_load_data, section)


KINDS = {
    "checkpoint": checkpoint,
    "run": run_folder,
    "config": config,
    "picture": picture,
    "idx": idx,
    "npz": npz,
    "packed": packed,
}


def _change_checkpoint(path: Path, samples: Path, rng: random.Random) -> str:
    file = rng.choice(sorted(path.iterdir()))
    others = sorted((samples / "runs").glob("*/checkpoints/*/*.safetensors"))
    if file.suffix == ".safetensors" and rng.random() < 0.2:
        shutil.copyfile(rng.choice(others), file)
        what = f"{file.name} of another"
    else:
        what = _change_file(file, samples, rng)
    if file.name != "manifest.json" and rng.random() < 0.85:
        sign(path)
        what += ", signed"
    return what


def _change_file(file: Path, samples: Path, rng: random.Random) -> str:
    content = file.read_bytes()
    structural = {".json": change_json, ".yaml": change_yaml, ".safetensors": change_safetensors}.get(file.suffix)
    if file.suffix == ".jsonl":
        lines = content.splitlines(keepends=True)
        place = rng.randrange(len(lines))
        lines[place] = change_json(lines[place], rng).replace(b"\n", b" ") + b"\n"
        file.write_bytes(b"".join(lines) * rng.choice([1, 1, 50]))
        return f"a line of {file.name}"
    if structural and rng.random() < 0.75:
        file.write_bytes(structural(content, rng))
        return f"parts of {file.name}"
    others = [other.read_bytes() for other in (samples / "runs").glob("mlp/checkpoints/*/*.json")]
    file.write_bytes(change_bytes(content, others, rng))
    return f"bytes of {file.name}"


def _put_in_place(path: Path, victim: Path, rng: random.Random) -> str:
    """Put something else than a file or folder of a run in its place."""
    aside = path.parent.parent / f"aside-{path.name}"
    path.rename(aside)
    what = rng.choice(
        ["a link", "a link to itself", "a link to what it was", "a pipe", "a folder", "a device", "a huge file"]
    )
    match what:
        case "a link":
            path.symlink_to(victim)
        case "a link to itself":
            path.symlink_to(path)
        case "a link to what it was":
            path.symlink_to(aside)
        case "a pipe":
            os.mkfifo(path)
        case "a folder":
            path.mkdir()
        case "a device":
            path.symlink_to("/dev/zero")
        case "a huge file":
            with path.open("wb") as file:
                file.truncate(1 << 40)
    return f"{what} instead of {path.name}"


def _command(arguments: list[str]) -> None:
    from vae_dist.cli import main

    sys.argv = ["vae-dist", *arguments]
    main()


def _in_sentences(function: Run) -> None:
    """Do something as a command of the program does, with errors in sentences."""
    from vae_dist.cli.errors import handle_errors

    try:
        handle_errors(function)()
    except typer.Exit as end:
        sys.exit(end.exit_code)


def _load_config(path: Path, overrides: list[str]) -> None:
    from vae_dist.config import load_config

    _in_sentences(lambda: print(len(load_config(path, overrides).to_yaml())))


def _load_data(section: Mapping[str, str | int]) -> None:
    from vae_dist.config import Config
    from vae_dist.data import load_dataset

    def load() -> None:
        dataset = load_dataset(Config.model_validate({"data": section}).data)
        print({split: len(dataset.images(split, range(min(8, dataset.size(split))))) for split in dataset.splits})

    _in_sentences(load)


def _read_idx(path: Path) -> None:
    from vae_dist.data.idx import read_idx_images

    _in_sentences(lambda: print(read_idx_images(path).shape))


def _read_run(path: Path) -> None:
    from vae_dist import Run as RunFolder
    from vae_dist.runs.run import last_figures

    run = RunFolder(path)

    def read() -> None:
        print(
            len(run.metrics()), len(run.metrics("val")), run.is_finished, len(run.provenance), len(last_figures(path))
        )
        print(run.config.train.steps, run.latest() is not None, run.best() is not None)

    _in_sentences(read)
