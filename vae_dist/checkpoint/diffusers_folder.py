"""Folders that diffusers' `AutoencoderKL` saves and loads: config.json beside diffusion_pytorch_model.safetensors.

Tensors have the names that ours have, so there is nothing to translate but the config, and four names of attention
layers in files that diffusers wrote before 2023.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save as serialize
from torch import Tensor

from vae_dist.atomic_files import replace_file
from vae_dist.checkpoint.format import MANIFEST, TensorSpec
from vae_dist.checkpoint.latents import LatentStatistics
from vae_dist.checkpoint.load import read_json_of, validate
from vae_dist.checkpoint.misplaced import is_lfs_pointer, lfs_advice
from vae_dist.checkpoint.model import check_finite
from vae_dist.checkpoint.tensor_file import DamagedCheckpointError, compare, read_specs, read_tensors
from vae_dist.config import AutoencoderKLConfig
from vae_dist.config.section import Layers, Width
from vae_dist.errors import UserError
from vae_dist.models import AutoencoderKL, ImageShape, build_model
from vae_dist.models.skeleton import MOST_TENSORS, skeleton
from vae_dist.printable import printable

CONFIG, NAME = "config.json", "diffusion_pytorch_model"
WEIGHTS = f"{NAME}.safetensors"
CLASS = "AutoencoderKL"
PIPELINE = "model_index.json"  # in a folder of which the autoencoder is a part, as vae/
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
LIKELIHOOD = "likelihood."  # begins the names of ours that diffusers has no place for


class DiffusersConfig(BaseModel):
    """The part of config.json that says which network it is; a key that is left out has diffusers' default."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    in_channels: Width = 3
    out_channels: Width = 3
    down_block_types: tuple[Literal["DownEncoderBlock2D"], ...] = ("DownEncoderBlock2D",)
    up_block_types: tuple[Literal["UpDecoderBlock2D"], ...] = ("UpDecoderBlock2D",)
    block_out_channels: tuple[Width, ...] = Field((64,), min_length=1, max_length=8)
    layers_per_block: Layers = 1
    act_fn: Literal["silu", "swish"] = "silu"  # two names of one function
    latent_channels: Width = 4
    norm_num_groups: Width = 32
    scaling_factor: float = Field(0.18215, gt=0)
    shift_factor: float | None = None
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True

    @property
    def model(self) -> AutoencoderKLConfig:
        """Return the same network as our config."""
        return AutoencoderKLConfig(
            z_dim=self.latent_channels,
            channels=self.block_out_channels,
            layers=self.layers_per_block,
            norm_groups=self.norm_num_groups,
            attention=self.mid_block_add_attention,
            quant_conv=self.use_quant_conv,
        )


@dataclass(frozen=True)
class DiffusersFolder:
    """A folder whose config and tensors fit each other.

    Attributes:
        path: of the folder.
        channels: of its images.
        config: of its network.
        scale: shift and factor of its latents: a diffusion model sees (z − shift) · factor.
    """

    path: Path
    channels: int
    config: AutoencoderKLConfig
    scale: tuple[float, float]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Check a folder, and read its config and its tensors' names and shapes.

        Raises:
            UserError: it is another kind of model, its weights are a pickle or in parts, or something doesn't fit.
        """
        _check_kind(path)
        file = path / CONFIG
        config = validate(DiffusersConfig, read_json_of(file), file)
        _check_config(file, config)
        try:
            scale = (config.shift_factor or 0.0, config.scaling_factor)
            folder = cls(path, config.in_channels, config.model, scale)
        except ValueError as error:
            raise DamagedCheckpointError(f"{file} is not understood: its channels and groups don't fit.") from error
        compare(folder.weights, folder.specs(), folder._expected())
        return folder

    @property
    def weights(self) -> Path:
        """Return the file with the tensors."""
        return self.path / WEIGHTS

    def specs(self) -> dict[str, TensorSpec | None]:
        """Return the tensors' shapes and types by our names."""
        return {_our_name(name): spec for name, spec in read_specs(self.weights).items()}

    def read(self) -> dict[str, Tensor]:
        """Return the tensors by our names, in float32.

        Raises:
            UserError: they can't be read, or hold numbers that are not finite.
        """
        tensors = {_our_name(name): tensor.float() for name, tensor in read_tensors(self.weights).items()}
        check_finite(self.weights, tensors)
        return tensors

    def load(self, height: int, width: int) -> AutoencoderKL:
        """Load the model for images of a size, in evaluation mode; its likelihood is no part of the folder."""
        model = build_model(self.config, (self.channels, height, width))
        assert isinstance(model, AutoencoderKL)  # noqa: S101 - of its config
        model.load_state_dict(self.read(), strict=False)
        return model.eval().requires_grad_(False)

    def _expected(self) -> dict[str, TensorSpec]:
        """Return the tensors that the config asks for, of any floating type that they are of."""
        side = 2 ** (len(self.config.channels) - 1)
        model = skeleton(partial(build_model, self.config), (self.channels, side, side), MOST_TENSORS)
        found = self.specs()
        expected = {}
        for name, tensor in without_likelihood(model.state_dict()).items():
            spec = found.get(name)
            dtype = spec.dtype if spec is not None and spec.dtype.is_floating_point else tensor.dtype
            expected[name] = TensorSpec(tuple(tensor.shape), dtype)
        return expected


def is_diffusers_folder(path: Path) -> bool:
    """Return whether a path looks like a folder of diffusers'."""
    if not path.is_dir() or (path / MANIFEST).exists():
        return False
    return (path / CONFIG).is_file() or (path / PIPELINE).is_file() or any(path.glob(f"{NAME}*"))


def without_likelihood(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that diffusers has a place for."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(LIKELIHOOD)}


def write_diffusers_folder(
    path: Path, model: AutoencoderKL, config: AutoencoderKLConfig, statistics: LatentStatistics | None
) -> None:
    """Write a model as a folder that `AutoencoderKL.from_pretrained` opens, the config last.

    Args:
        path: of the folder.
        model: on any device.
        config: of the model.
        statistics: of its latents; without them the scaling factor is 1.

    Raises:
        OSError: the disk refuses.
    """
    for name, content in diffusers_files(model, config, statistics).items():
        replace_file(path / name, content)


def diffusers_files(
    model: AutoencoderKL, config: AutoencoderKLConfig, statistics: LatentStatistics | None
) -> dict[str, bytes]:
    """Return the files of such a folder by name, as `write_diffusers_folder` writes them."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in without_likelihood(model.state_dict()).items()}
    content = _config_of(config, model.image_shape, statistics)
    return {
        WEIGHTS: serialize(tensors, metadata={"format": "pt"}),
        CONFIG: json.dumps(content, indent=2).encode() + b"\n",
    }


def _config_of(
    config: AutoencoderKLConfig, image_shape: ImageShape, statistics: LatentStatistics | None
) -> dict[str, object]:
    channels, *size = image_shape
    levels = len(config.channels)
    return {
        "_class_name": CLASS,
        "in_channels": channels,
        "out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": list(config.channels),
        "layers_per_block": config.layers,
        "act_fn": "silu",
        "latent_channels": config.z_dim,
        "norm_num_groups": config.norm_groups,
        "sample_size": max(size),
        "scaling_factor": statistics.scaling_factor if statistics else 1.0,
        "shift_factor": statistics.shift_factor if statistics else None,
        "use_quant_conv": config.quant_conv,
        "use_post_quant_conv": config.quant_conv,
        "mid_block_add_attention": config.attention,
    }


def _check_kind(path: Path) -> None:
    """Refuse folders of other models, and weights that can't be read without risk or in one piece."""
    if (path / PIPELINE).is_file():
        raise UserError(f"{path} is a whole pipeline of diffusers': give its autoencoder, {path / 'vae'}.")
    if not (path / CONFIG).is_file():
        raise DamagedCheckpointError(f"{path} has no {CONFIG}, which says which network its weights are of.")
    content = read_json_of(path / CONFIG)
    kind = content.get("_class_name") if isinstance(content, dict) else None
    if kind != CLASS:
        raise UserError(f"{path} is of the kind {printable(str(kind), 100)}: of diffusers' models {CLASS} is read.")
    weights = path / WEIGHTS
    if weights.is_file():
        if is_lfs_pointer(weights):
            raise DamagedCheckpointError(lfs_advice(weights))
        return
    names = sorted(file.name for file in path.iterdir())
    if any(name.endswith(".index.json") for name in names):
        raise UserError(f"{path} holds its weights in parts: save them as one file, {WEIGHTS}.")
    if pickle := next((name for name in names if name.endswith(PICKLES)), None):
        raise UserError(
            f"{path / pickle} is a pickle, which can run code as it is opened, and isn't read: "
            f"save the weights as {WEIGHTS}, which is what diffusers does by default."
        )
    if other := next((name for name in names if name.endswith(".safetensors")), None):
        raise UserError(f"{path} has {other} and no {WEIGHTS}: rename it, if that is what it is.")
    raise DamagedCheckpointError(f"{path} has no {WEIGHTS}.")


def _check_config(file: Path, config: DiffusersConfig) -> None:
    """Refuse networks that a config of ours can't describe."""
    levels = {len(config.down_block_types), len(config.up_block_types), len(config.block_out_channels)}
    if len(levels) > 1:
        raise DamagedCheckpointError(f"{file} is not understood: its lists of blocks and channels differ in length.")
    for first, second in (("in_channels", "out_channels"), ("use_quant_conv", "use_post_quant_conv")):
        if getattr(config, first) != getattr(config, second):
            raise UserError(f"{file}: {first} and {second} differ, and in autoencoders of ours they are the same.")


def _our_name(name: str) -> str:
    """Return a tensor's name as diffusers writes it now."""
    module, _, kind = name.rpartition(".")
    parent, _, layer = module.rpartition(".")
    return f"{parent}.{OLD_NAMES[layer]}.{kind}" if ".attentions." in name and layer in OLD_NAMES else name
