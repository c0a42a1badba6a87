"""Train short runs of every kind and print a digest of what each computed: a refactor runs it before and after.

Every run takes 60 steps. Its digests are of the tensors of the last checkpoint (names, types, shapes and bytes) and of
its pictures; beside them stand the training loss of the last steps and the figures of an evaluation, as printed. They
hold for one build of torch and one model of processor: on another machine, record both sides anew.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from arguments import new_file
from machine import cpu_name
from PIL import Image
from safetensors import safe_open

from vae_dist.errors import UserError

Digests = dict[str, dict[str, Any]]

COMMON = (
    "train.steps=60",
    "train.log_every=20",
    "train.eval_every=30",
    "train.batch_size=24",
    "train.micro_batches=6",
    "train.threads=1",
    "train.compile=off",
    "train.precision=fp32",
    "optim.ema=0.9",
)
FIGURES = ("neg_elbo", "distortion", "rate", "rate_per_group", "nll", "bits_per_dim", "active_units")
PICTURES = 60


class Setting(NamedTuple):
    """A short run: what it sets, and on how many processes."""

    settings: tuple[str, ...]
    processes: int = 1
    data: str = "data.val_size=100"


GREY = ("data.binarize=none",)
MLP = "model={kind: mlp, h_dim: 32"
CONV = "model={kind: conv, width: 8, blocks: 2, z_dim: 6"
LADDER = "model={kind: hierarchical, width: 8, blocks: 1, z_dim: 2, groups: [1, 2]"
SETTINGS = {
    "mlp": Setting((f"{MLP}}}",)),
    "mlp vamp gaussian": Setting((*GREY, f"{MLP}, prior: {{kind: vamp, pseudo_inputs: 20}}, likelihood: gaussian}}")),
    "mlp flow mixture": Setting((*GREY, f"{MLP}, prior: {{kind: flow, couplings: 3}}, likelihood: logistic-mixture}}")),
    "mlp gelu gaussian pixel adamax": Setting(
        (
            *GREY,
            f"{MLP}, depth: 2, activation: gelu, likelihood: {{kind: gaussian, sigma: pixel}}}}",
            "optim={kind: adamax, ema: null, weight_decay: 0.01, schedule: constant}",
            "train.accumulate=3",
        )
    ),
    "mlp static sgd warm-up": Setting(
        (
            "data.binarize=static",
            f"{MLP}}}",
            "optim={kind: sgd, lr: 0.01, warmup_steps: 10, clip_norm: 1.0, skip_norm: 1000.0}",
            "objective={warmup_steps: 20, beta: 0.5}",
        )
    ),
    "mlp iwae": Setting((f"{MLP}}}", "objective={kind: iwae, samples: 2, final_samples: 4, final_from: 0.5}")),
    "mlp flow doubly reparameterized": Setting(
        (
            f"{MLP}, prior: {{kind: flow, couplings: 2}}}}",
            "objective={kind: iwae, samples: 3, doubly_reparameterized: true, warmup_steps: 30}",
        )
    ),
    "mlp compiled": Setting((f"{MLP}}}", "train.compile=on")),
    "conv flow bf16": Setting((f"{CONV}, prior: flow}}", "train.precision=bf16")),
    "conv colour mixture": Setting(
        (*GREY, f"{CONV}, likelihood: logistic-mixture}}"),
        data="data={name: folder, size: 20}",
    ),
    "ladder free bits": Setting((f"{LADDER}}}", "objective.free_bits=0.5")),
    "ladder mixture bf16": Setting((*GREY, f"{LADDER}, likelihood: logistic-mixture}}", "train.precision=bf16")),
    "mlp vamp, ddp on 2": Setting((f"{MLP}, prior: {{kind: vamp, pseudo_inputs: 20}}}}",), processes=2),
    "conv, ddp on 3, accumulate": Setting((f"{CONV}}}", "train.accumulate=2"), processes=3),
    "conv, exact on 1": Setting((f"{CONV}}}", "train.reduce=exact")),
    "conv, exact on 3": Setting((f"{CONV}}}", "train.reduce=exact"), processes=3),
}


def main() -> None:
    """Parse the command line, run every setting, and write or compare."""
    parser = argparse.ArgumentParser(prog="scripts/fingerprints", description=__doc__.split("\n\n")[0])
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the digests there")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare with the digests in a file")
    parser.add_argument("--only", choices=[*SETTINGS], metavar="SETTING", help="one setting instead of all")
    options = parser.parse_args()
    expected = json.loads(options.against.read_text()) if options.against else None
    if expected is not None and expected["machine"] != machine():
        print(f"Recorded on {expected['machine']}, and this is {machine()}: differences mean nothing.")
    found: Digests = {}
    with tempfile.TemporaryDirectory(prefix="vae-dist-fingerprints-") as folder:
        draw_pictures(Path(folder) / "pictures")
        for name in [options.only] if options.only else SETTINGS:
            found[name] = fingerprint(Path(folder), name)
            print(f"{name}: {verdict(found[name], expected['settings'].get(name) if expected else None)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "settings": found}, indent=1) + "\n")
    if expected is not None and any(expected["settings"].get(name) != digests for name, digests in found.items()):
        sys.exit("DIFFERENT")


def machine() -> str:
    """What the bits hold for."""
    return f"torch {torch.__version__}, {cpu_name()}"


def draw_pictures(folder: Path) -> None:
    """A folder of coloured pictures: smooth waves, no two alike."""
    folder.mkdir()
    rows, columns = np.mgrid[0:24, 0:30]
    for number in range(PICTURES):
        waves = [
            np.sin(rows / (3 + number % 7) + c + number) + np.cos(columns / (2 + number % 5) - c) for c in range(3)
        ]
        levels = (np.stack(waves, axis=-1) * 63 + 128).astype(np.uint8)
        Image.fromarray(levels).save(folder / f"{number:02}.png")


def fingerprint(folder: Path, name: str) -> dict[str, Any]:
    """Train a setting and digest what it left."""
    settings, processes, data = SETTINGS[name]
    run = folder / name.replace(" ", "-")
    arguments = [part for setting in (*COMMON, data, *settings) for part in ("--set", setting)]
    if "folder" in data:
        arguments += ["--set", f"data.root={folder / 'pictures'}"]
    vae_dist(folder, "train", *arguments, "--num-processes", str(processes), "--out", str(run))
    evaluation = json.loads(
        vae_dist(folder, "evaluate", "--checkpoint", str(run), "--k", "7", "--json", "--split", "val")
    )
    digests = {path.stem: tensors_digest(path) for path in sorted(run.glob("checkpoints/step-00000060/*.safetensors"))}
    pictures = {path.name: pixels_digest(path) for path in sorted((run / "images").glob("*.png"))}
    logged = [line["loss"] for line in metrics(run) if "loss" in line]
    return digests | pictures | {"losses": logged} | {key: evaluation[key] for key in FIGURES}


def vae_dist(folder: Path, *arguments: str) -> str:
    """Run the program and return what it printed."""
    result = subprocess.run(
        [sys.executable, "-m", "vae_dist", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise UserError(f"vae-dist {' '.join(arguments)} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def metrics(run: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    return map(json.loads, (run / "metrics.jsonl").read_text().splitlines())


def tensors_digest(path: Path) -> str:
    """The SHA-256 of a file's tensors, however the file orders them."""
    digest = hashlib.sha256()
    with safe_open(path, framework="pt") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def pixels_digest(path: Path) -> str:
    """The SHA-256 of a picture's pixels."""
    with Image.open(path) as picture:
        return hashlib.sha256(f"{picture.mode} {picture.size}".encode() + picture.tobytes()).hexdigest()


def verdict(found: dict[str, Any], expected: dict[str, Any] | None) -> str:
    """What to print of a setting: what differs, or its digest where there is nothing to compare with."""
    if expected is None:
        return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:16]
    different = [key for key in {**expected, **found} if expected.get(key) != found.get(key)]
    return f"DIFFERENT in {', '.join(different)}" if different else "the same"


if __name__ == "__main__":
    main()
