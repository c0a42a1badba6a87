"""What the server of `tests.ranks` has done before it forks: imports, and the built-in digits decoded."""

import gc
import os
from functools import cache

os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # more have each process start another, which only Triton needs

import torch
import torch._dynamo  # optimizers import it, by a detour
from torch.nn.parallel import DistributedDataParallel  # noqa: F401

import vae_dist.cli
import vae_dist.training.trainer  # noqa: F401
from vae_dist.data import digits, idx

torch.set_num_threads(1)
digits.read_idx_images = read_once = cache(idx.read_idx_images)  # type: ignore[attr-defined]
read_once(digits.FILE)
gc.collect()
gc.freeze()  # no process that is forked looks through all that for garbage
