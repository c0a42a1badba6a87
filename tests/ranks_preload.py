"""What the server of `tests.ranks` imports before it forks."""

import torch
import torch._dynamo  # optimizers import it, by a detour
from torch.nn.parallel import DistributedDataParallel  # noqa: F401

import vae_dist.training.trainer  # noqa: F401

torch.set_num_threads(1)
