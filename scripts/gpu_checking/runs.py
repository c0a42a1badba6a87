"""Short runs of the real command, and digests of what they leave."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from safetensors import safe_open
from torch import Tensor

from vae_dist.checkpoint import find_checkpoint

SCRIPTS = Path(__file__).parent.parent
LONGEST_S = 120.0
POLL_S = 0.002
COMMON = ("train.deterministic=true", "data.val_size=200", "train.log_every=7", "train.threads=1", "seed=3")
PLAIN = ("-m", "vae_dist")
# Long enough on a GPU to be killed in the middle; on a CPU a step takes a hundred times as long.
STEPS, EVERY = {True: 1200, False: 60}, {True: 100, False: 5}
CONV = ("model={kind: conv, width: 32, z_dim: 16, prior: {kind: flow, couplings: 2}}", "train.precision=bf16")
MLP = ("model.h_dim=32", "train.precision=fp32", "train.batch_size=32")


class BrokenPromiseError(Exception):
    """Something isn't as it is promised."""


@dataclass
class Lab:
    """A folder for runs, on a GPU or on the CPU.

    Attributes:
        folder: for the runs.
        on_gpu: whether to train on a GPU.
    """

    folder: Path
    on_gpu: bool
    _done: set[str] = field(default_factory=set)
    _locks: dict[str, Lock] = field(default_factory=dict)  # several checks at once may ask for the same run

    @property
    def network(self) -> tuple[str, ...]:
        """Return the settings of the network that most checks train."""
        return CONV if self.on_gpu else MLP

    def run(self, name: str, *settings: str, launcher: Sequence[str] = PLAIN, options: Sequence[str] = ()) -> Path:
        """Train to the end, once for each name, and return the run's folder.

        Raises:
            BrokenPromiseError: the command failed.
        """
        with self._locks.setdefault(name, Lock()):
            if name not in self._done:
                self.finish(self.folder / name, *settings, launcher=launcher, options=options)
                self._done.add(name)
        return self.folder / name

    def finish(self, run: Path, *settings: str, launcher: Sequence[str] = PLAIN, options: Sequence[str] = ()) -> str:
        """Train a run to its end, or go on with it, and return what was printed."""
        return self.call(*self._train(run, settings, launcher), *options)

    def kill_in_the_middle(self, run: Path, *settings: str) -> int:
        """Start a run, kill it with -9 after its second checkpoint, and return the step of its last checkpoint.

        Raises:
            BrokenPromiseError: it ended before, or never had two.
        """
        command = [sys.executable, *self._train(run, settings, PLAIN)]
        process = subprocess.Popen(
            command, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + LONGEST_S
        try:
            while not (run / "checkpoints" / f"step-{2 * EVERY[self.on_gpu]:08d}").exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise BrokenPromiseError("the run ended, or had no two checkpoints, before it could be killed")
                time.sleep(POLL_S)
            if process.poll() is not None:
                raise BrokenPromiseError("the run ended before it could be killed")
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return find_checkpoint(run).state.step

    def call(self, *arguments: str) -> str:
        """Run Python, and return what was printed.

        Raises:
            BrokenPromiseError: it failed, or took too long.
        """
        command = [sys.executable, *arguments]
        try:
            result = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=LONGEST_S)
        except subprocess.TimeoutExpired as error:
            raise BrokenPromiseError(f"{' '.join(arguments[:4])} … took more than {LONGEST_S:g} s") from error
        if result.returncode:
            last = (result.stderr.strip() or result.stdout.strip() or "no message").splitlines()[-1]
            raise BrokenPromiseError(f"{' '.join(arguments[:4])} … failed: {last}")
        return result.stdout + result.stderr

    def _train(self, run: Path, settings: Sequence[str], launcher: Sequence[str]) -> list[str]:
        steps, every = STEPS[self.on_gpu], EVERY[self.on_gpu]
        lengths = (f"train.steps={steps}", f"train.checkpoint_every={every}", f"train.eval_every={steps}")
        sets = [part for setting in (*COMMON, *lengths, *settings) for part in ("--set", setting)]
        return [*launcher, "train", *sets, "--out", str(run)]

    @property
    def _environment(self) -> Mapping[str, str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPTS.parent), str(SCRIPTS)])}
        return environment if self.on_gpu else {**environment, "ACCELERATE_USE_CPU": "true"}


def tensors(run: Path) -> dict[str, Tensor]:
    """Return all tensors of the last checkpoint: weights, their average, the optimizer's state."""
    found: dict[str, Tensor] = {}
    for path in sorted(find_checkpoint(run).path.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {f"{path.stem}/{name}": file.get_tensor(name) for name in sorted(file.keys())}
    return found


def digest(run: Path) -> str:
    """Return a digest of all tensors of the last checkpoint and of all logged figures."""
    digest = hashlib.sha256((run / "metrics.jsonl").read_bytes())
    for name, tensor in tensors(run).items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def same_bits(first: Path, second: Path) -> str:
    """Return the common digest of two runs.

    Raises:
        BrokenPromiseError: they differ.
    """
    digests = digest(first), digest(second)
    if digests[0] != digests[1]:
        raise BrokenPromiseError(f"{first.name} and {second.name} differ: {digests[0]} and {digests[1]}")
    return digests[0]


def figures(text: str) -> dict[str, Any]:
    """Return the figures that `evaluate --json` printed, after whatever came before."""
    found: dict[str, Any] = json.loads(text[text.index("{") : text.rindex("}") + 1])
    return found
