"""FID's network: Inception v3 as the TensorFlow graph of 2015-12-05 has it (Heusel et al., arXiv:1706.08500).

torchvision's differs in its pools: here averages leave the padding out, and the last block takes a maximum. Images are
resized as TensorFlow 1 did: corners and not centres of pixels coincide, without antialiasing. Tensors are named as in
the file `pt_inception-2015-12-05-6726825d.pth` that pytorch-fid and torch-fidelity share.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import inception

from vae_dist.losses.frozen_weights import load_frozen

INCEPTION_SIZE = 299
CLASSES = 1008

_average = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
_maximum = partial(F.max_pool2d, kernel_size=3, stride=1, padding=1)


class FIDInception(inception.Inception3):  # type: ignore[misc] # torchvision has no types
    """Returns 2,048 features an image: the last block's, averaged over places.

    Its weights are arbitrary until they are loaded.
    """

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):  # a run's random numbers stay as they were
            super().__init__(num_classes=CLASSES, aux_logits=False, init_weights=False)
        for name, channels, pooled in (("Mixed_5b", 192, 32), ("Mixed_5c", 256, 64), ("Mixed_5d", 288, 64)):
            setattr(self, name, _BlockA(channels, pooled))
        for name, channels in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            setattr(self, name, _BlockC(768, channels))
        self.Mixed_7b = _BlockE(1280)
        self.Mixed_7c = _LastBlock(2048)
        self.dropout, self.fc = nn.Identity(), nn.Identity()

    def forward(self, x: Float[Tensor, "n 3 299 299"]) -> Float[Tensor, "n 2048"]:
        """Return the features of prepared images."""
        features: Tensor = self._forward(x)[0]
        return features


@dataclass(frozen=True)
class InceptionBackbone:
    """FID's own network, with images prepared as for it.

    Attributes:
        network: with weights.
        sha256: of the file with them.
        size: features of an image.
    """

    network: nn.Module
    sha256: str
    size: int = 2048

    @classmethod
    def load(cls, weights: Path, device: torch.device) -> "InceptionBackbone":
        """Build the network, with weights from a safetensors file.

        Raises:
            UserError: the file can't be read, or isn't of that network.
        """
        network = FIDInception()
        sha256 = load_frozen(network, weights, "FID's Inception")
        return cls(network.to(device), sha256)

    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Return the features of images with pixel values in [0, 1], before the classifier and averaged over places."""
        features: Tensor = self.network(prepare_for_inception(images.float().expand(-1, 3, -1, -1)))
        return features

    def __str__(self) -> str:
        return (
            f"features of FID's Inception (weights {self.sha256[:16]}), images rounded to 8 bits and resized to "
            f"{INCEPTION_SIZE}×{INCEPTION_SIZE}, bilinear as TensorFlow 1 did"
        )


def prepare_for_inception(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 299 299"]:
    """Round pixels in [0, 1] to 8 bits, as in a file, resize, and scale to about [−1, 1]."""
    resized = images.mul(255).round().clamp(0, 255)
    for dimension in (2, 3):
        resized = _resize(resized, dimension)
    return (resized - 128) / 128


def _resize(images: Float[Tensor, "n c h w"], dimension: int) -> Float[Tensor, "n c new_h new_w"]:
    """Interpolate linearly along one dimension, whose first pixels coincide before and after."""
    side = images.shape[dimension]
    places = torch.arange(INCEPTION_SIZE, device=images.device) * (side / INCEPTION_SIZE)
    before = places.floor().long()
    after = (before + 1).clamp(max=side - 1)
    weight = (places - before).view([-1 if axis == dimension else 1 for axis in range(4)])
    return torch.lerp(images.index_select(dimension, before), images.index_select(dimension, after), weight)


class _BlockA(inception.InceptionA):  # type: ignore[misc]
    def _forward(self, x: Tensor) -> list[Tensor]:
        narrow = self.branch5x5_2(self.branch5x5_1(x))
        wide = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return [self.branch1x1(x), narrow, wide, self.branch_pool(_average(x))]


class _BlockC(inception.InceptionC):  # type: ignore[misc]
    def _forward(self, x: Tensor) -> list[Tensor]:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return [self.branch1x1(x), once, twice, self.branch_pool(_average(x))]


class _BlockE(inception.InceptionE):  # type: ignore[misc]
    def _forward(self, x: Tensor) -> list[Tensor]:
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return [
            self.branch1x1(x),
            torch.cat([self.branch3x3_2a(once), self.branch3x3_2b(once)], 1),
            torch.cat([self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice)], 1),
            self.branch_pool(self._pool(x)),
        ]

    def _pool(self, x: Tensor) -> Tensor:
        return _average(x)


class _LastBlock(_BlockE):
    def _pool(self, x: Tensor) -> Tensor:
        return _maximum(x)
