"""Files as they should be, of every kind, from which the cases are made."""

import gzip
import lzma
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 8
MODELS: dict[str, Any] = {
    "mlp": {"kind": "mlp", "h_dim": 6, "depth": 2, "z_dim": 2, "prior": {"kind": "vamp", "pseudo_inputs": 3}},
    "conv": {"kind": "conv", "width": 4, "blocks": 1, "z_dim": 2, "prior": {"kind": "flow", "couplings": 2}},
    "hierarchical": {"kind": "hierarchical", "width": 4, "blocks": 1, "z_dim": 2, "groups": [1, 1]},
}
IMAGES = {
    "grey.png": ("L", "PNG"),
    "colour.png": ("RGB", "PNG"),
    "palette.png": ("P", "PNG"),
    "alpha.png": ("RGBA", "PNG"),
    "deep.png": ("I;16", "PNG"),
    "photo.jpg": ("RGB", "JPEG"),
    "moving.gif": ("P", "GIF"),
    "plain.bmp": ("RGB", "BMP"),
    "map.ppm": ("RGB", "PPM"),
    "scan.tiff": ("RGB", "TIFF"),
    "float.tif": ("F", "TIFF"),
    "web.webp": ("RGB", "WEBP"),
}
IDX_FILES = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
STEPS = 2


def make_samples(folder: Path) -> None:
    """Write pictures, a run of every model, IDX files, the archive of a fixed draw, and configs."""
    rng = np.random.default_rng(0)
    _pictures(folder / "pictures", rng)
    _idx(folder / "idx", rng)
    (folder / "npz").mkdir()
    train, tenth = np.zeros((50_000, 98), np.uint8), np.zeros((10_000, 98), np.uint8)
    np.savez_compressed(folder / "npz" / "binarized_mnist.npz", train=train, valid=tenth, test=tenth)
    shutil.copytree(Path(__file__).parent.parent.parent / "vae_dist" / "configs", folder / "yaml")
    # Trained in another process: torch's threads must not be there when a case is forked.
    process = multiprocessing.get_context("fork").Process(target=_train, args=(folder,))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError("the samples couldn't be trained")


def config_of(kind: str, samples: Path) -> dict[str, Any]:
    """Return the config of a sample run."""
    return {
        "model": MODELS[kind],
        "data": {"name": "folder", "root": str(samples / "set"), "size": SIDE, "val_size": 2},
        "train": {
            "steps": STEPS,
            "batch_size": 4,
            "micro_batches": 2,
            "threads": 1,
            "precision": "fp32",
            "log_every": 1,
            "checkpoint_every": 1,
            "keep_last": 2,
        },
    }


def _pictures(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    levels = rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)
    for name, (mode, kind) in IMAGES.items():
        grey = levels[..., 0]
        if mode == "I;16":
            picture = Image.fromarray(grey.astype(np.uint16) * 257)
        elif mode == "F":
            picture = Image.fromarray(grey.astype(np.float32) / 255)
        else:
            picture = Image.fromarray(levels).convert(mode)
        picture.save(folder / name, format=kind)
    (folder.parent / "set").mkdir()
    for number in range(8):
        Image.fromarray(levels[..., number % 3]).save(folder.parent / "set" / f"{number}.png")


def _idx(folder: Path, rng: np.random.Generator) -> None:
    folder.mkdir()
    for name, rows in zip(IDX_FILES, (20, 10), strict=True):
        header = bytes([0, 0, 8, 3]) + b"".join(size.to_bytes(4, "big") for size in (rows, SIDE, SIDE))
        content = header + rng.integers(0, 256, rows * SIDE * SIDE, dtype=np.uint8).tobytes()
        (folder / name).write_bytes(content)
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        (folder / f"{name}.xz").write_bytes(lzma.compress(content))


def _train(folder: Path) -> None:
    from vae_dist import train
    from vae_dist.data.packs.pack_folder import pack_folder

    for storage in ("pixels", "original"):
        size = (SIDE, SIDE) if storage == "pixels" else None
        pack_folder(
            folder / "set", folder / storage, storage, size, skip=False, shard_bytes=1000, on_progress=lambda *_: None
        )
        (folder / storage / ".lock").unlink()
    for kind in MODELS:
        train(config_of(kind, folder), folder / "runs" / kind)
