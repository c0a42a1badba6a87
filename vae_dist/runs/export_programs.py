"""Export of a model's two networks as programs that run without this package: by torch.export, or as ONNX.

Both take a batch of any size. What is written is run on random input and compared with the model before it counts.
"""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_dist.atomic_files import replace_file
from vae_dist.checkpoint import Checkpoint
from vae_dist.checkpoint.model import model_of
from vae_dist.errors import UserError
from vae_dist.models import Model
from vae_dist.models.spatial import SpatialModel
from vae_dist.runs.export import check_new_folder
from vae_dist.runs.model_card import CARD, weights_of
from vae_dist.runs.onnx_model import OPSET, write_onnx

Format = Literal["torch", "onnx"]
TRACED, CHECKED = 2, 5  # images in a batch: the one that is traced, and another that the program is checked with
TOLERANCE = 1e-4  # of the largest value

OPERATORS = {"torch": "", "onnx": f"- ONNX operators of opset {OPSET}; compared with the model in onnxruntime\n"}
LOADING = {
    "torch": """import torch

encoder = torch.export.load("encoder.pt2").module()
decoder = torch.export.load("decoder.pt2").module()
mu, sigma = encoder(x)
pixels = decoder(mu)""",
    "onnx": """import onnxruntime

encoder, decoder = (onnxruntime.InferenceSession(f"{name}.onnx") for name in ("encoder", "decoder"))
mu, sigma = encoder.run(None, {"x": x})
(pixels,) = decoder.run(None, {"z": mu})""",
}


class Encoder(nn.Module):
    """The posterior of images: its mean and standard deviation."""

    input: ClassVar = "x"
    outputs: ClassVar = ("mu", "sigma")

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Float[Tensor, "batch c h w"]) -> tuple[Float[Tensor, "batch *z"], Float[Tensor, "batch *z"]]:
        """Return mean and standard deviation."""
        posterior = self.model.encode(x)
        return posterior.mu, posterior.sigma


class Decoder(nn.Module):
    """The pixel means of latents, in [0, 1]."""

    input: ClassVar = "z"
    outputs: ClassVar = ("pixels",)

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Float[Tensor, "batch *z"]) -> Float[Tensor, "batch c h w"]:
        """Return the pixel means."""
        return self.model.decode_mean(z)


def export_programs(checkpoint: Checkpoint, out: Path, file_format: Format) -> float:
    """Write encoder and decoder of a checkpoint, its averaged weights where there are any, on the CPU in float32.

    Returns:
        The largest difference from the model on random input, relative to its largest value.

    Raises:
        UsageError: the folder is there and not empty, or a package is missing.
        UserError: what was written computes something else, or can't be traced.
        OSError: the disk refuses.
    """
    check_new_folder(out)
    model = model_of(checkpoint)
    if isinstance(model, SpatialModel):
        model = model.for_images(checkpoint.rule.height, checkpoint.rule.width)
    generator, worst = torch.Generator().manual_seed(0), 0.0
    x = torch.rand(CHECKED, *model.image_shape, generator=generator)
    z = torch.randn(CHECKED, *model.latent_shape, generator=generator)
    write, suffix = WRITERS[file_format]
    networks: dict[str, tuple[Network, Tensor]] = {"encoder": (Encoder(model), x), "decoder": (Decoder(model), z)}
    contents = {}
    for name, (network, example) in networks.items():
        content, run = write(network.eval(), example[:TRACED], _metadata(checkpoint))
        worst = max(worst, _difference(network, run, example, f"The {name} of {checkpoint.path}"))
        contents[f"{name}{suffix}"] = content
    for name, content in {**contents, CARD: _card(checkpoint, model, file_format).encode()}.items():
        replace_file(out / name, content)
    return worst


Network = Encoder | Decoder
Written = tuple[bytes, Callable[[Tensor], Any]]  # a file's content, and what runs it


def _write_torch(network: Network, example: Tensor, metadata: Mapping[str, str]) -> Written:
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files=dict(metadata))
    buffer.seek(0)
    return buffer.getvalue(), torch.export.load(buffer).module()


def _write_onnx(network: Network, example: Tensor, metadata: Mapping[str, str]) -> Written:
    return write_onnx(network, example, network.input, network.outputs, metadata)


WRITERS: dict[Format, tuple[Callable[[Network, Tensor, Mapping[str, str]], Written], str]] = {
    "torch": (_write_torch, ".pt2"),
    "onnx": (_write_onnx, ".onnx"),
}


def _difference(network: nn.Module, run: Callable[[Tensor], Any], example: Tensor, name: str) -> float:
    """Return how far a program is from its network, for a batch of another size than it was traced with.

    Raises:
        UserError: too far.
    """
    with torch.no_grad():
        pairs = zip(_outputs(network(example)), _outputs(run(example)), strict=True)
        worst = max(float((there - here).abs().max() / here.abs().max().clamp(min=1e-9)) for here, there in pairs)
    if not worst <= TOLERANCE:
        raise UserError(f"{name} computes something else where it is exported: off by {worst:.2g} of its values.")
    return worst


def _outputs(result: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [result] if isinstance(result, Tensor) else result


def _metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """Return what a file says of its origin, and of the pixels that its network takes or gives."""
    from vae_dist import __version__

    return {
        "program": f"vae-dist {__version__}",
        "run": os.fsencode(checkpoint.run).decode("utf-8", "replace"),  # not every name is UTF-8
        "step": str(checkpoint.state.step),
        "weights": weights_of(checkpoint),
        "pixels": "[0, 1]",
    }


def _card(checkpoint: Checkpoint, model: Model, file_format: Format) -> str:
    """Write the page that goes with the files: what goes in and comes out, of which run, and how to load them."""
    config, state = checkpoint.config, checkpoint.state
    images, latents = (f"(batch, {', '.join(map(str, shape))})" for shape in (model.image_shape, model.latent_shape))
    return f"""# {config.model.kind}, exported by vae-dist

Weights: {weights_of(checkpoint)}, after step {state.step:,} of {config.train.steps:,}. Data: {config.data.name}.

- `encoder`: from images `x` of shape {images}, float32 with pixels in [0, 1], to `mu` and `sigma`, mean and standard
  deviation of the posterior, each of shape {latents}
- `decoder`: from latents `z` of shape {latents} to `pixels`, the pixel means in [0, 1]
{OPERATORS[file_format]}
```python
{LOADING[file_format]}
```
"""
