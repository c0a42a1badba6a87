"""The datasets that a config can name. To add one, add a class and its name in the union at the end."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from vae_dist.config.section import CountOrZero, Kind, Kinds, Side, Switch, Whole

Split = Literal["train", "val", "test"]
Binarization = Literal["dynamic", "static", "none"]
Binarize = Annotated[
    Binarization,
    Field(description="dynamic: a fresh Bernoulli draw at every use; static: one fixed draw; none: levels as they are"),
]
Colours = Annotated[Literal["none"], Field(description="colours are modelled as they are")]
Size = Annotated[
    Side | tuple[Side, Side] | None,
    Field(description="pixels: the side, or [height, width]; null: the pictures' own"),
]
Root = Annotated[Path | None, Field(description="folder to look in before VAE_DIST_DATA and the cache")]
Resident = Annotated[
    Switch, Field(description="keep all pixels in memory (on a GPU, in its own); auto: if they take a gibibyte or less")
]
Shuffle = Annotated[
    Literal["full", "blocks"],
    Field(
        description="full: any order; blocks: by blocks of neighbours, for sets on a disk that are larger than memory"
    ),
]


def sides(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the height and width that a side, or both, stand for."""
    return (size, size) if isinstance(size, int) else size


def check_levels(levels: tuple[float, float]) -> tuple[float, float]:
    """Return levels that are apart.

    Raises:
        ValueError: they are not.
    """
    low, high = levels
    if not (max(abs(low), abs(high)) <= MOST_LEVEL and high - low >= 1 / MOST_LEVEL):
        raise ValueError(
            f"data.levels is [{low:g}, {high:g}]: give the value that is black and a larger one that is white"
        )
    return levels


MOST_LEVEL = 1e12
Levels = Annotated[tuple[float, float], AfterValidator(check_levels)]

Fit = Annotated[
    Literal["crop", "pad"],
    Field(description="to size: crop keeps the largest centred part of each picture, pad all of it, over background"),
]
GreyLevel = Annotated[
    Whole,
    Field(ge=0, lt=256, description="grey level below transparent pictures and around padded ones, 0 to 255"),
]


class ImagesConfig(Kind):
    """The keys that all data have."""

    name: str
    random_flip: bool = Field(False, description="mirror training images left to right, each with probability 1/2")
    random_crop: Side | tuple[Side, Side] | None = Field(
        None,
        description="train on a random part of each image, of this side or [height, width]; all else sees the centre",
    )


class DividedConfig(ImagesConfig):
    """The keys of data whose last training images may be held out."""

    val_size: CountOrZero | None = Field(
        None, description="images held out at the end of train; null: the data's own number"
    )


class DigitsConfig(DividedConfig):
    """The 10,000 digits that come with the package."""

    builder: ClassVar[str] = "vae_dist.data.digits:load_digits"

    name: Literal["digits"] = "digits"
    binarize: Binarize = "dynamic"


class MnistConfig(DividedConfig):
    """MNIST or Fashion-MNIST."""

    builder: ClassVar[str] = "vae_dist.data.mnist:load_mnist"

    name: Literal["mnist", "fashion-mnist"] = Field("mnist", description="which of the two sets")
    root: Root = None
    binarize: Binarize = "dynamic"


class BinarizedMnistConfig(ImagesConfig):
    """Larochelle's fixed draw of MNIST, which comes with a validation split."""

    builder: ClassVar[str] = "vae_dist.data.binarized_mnist:load_binarized_mnist"

    name: Literal["binarized-mnist"] = "binarized-mnist"
    root: Root = None
    binarize: Literal["static"] = Field("static", description="the images are a fixed draw already")


class CifarConfig(DividedConfig):
    """CIFAR-10 or CIFAR-100, in colour."""

    builder: ClassVar[str] = "vae_dist.data.cifar:load_cifar"

    name: Literal["cifar10", "cifar100"] = Field("cifar10", description="which of the two sets")
    root: Root = None
    binarize: Colours = "none"


class SvhnConfig(DividedConfig):
    """SVHN's house numbers, in colour."""

    builder: ClassVar[str] = "vae_dist.data.svhn:load_svhn"

    name: Literal["svhn"] = "svhn"
    root: Root = None
    binarize: Colours = "none"


class PicturesConfig(DividedConfig):
    """The keys that every set of picture files has."""

    root: Path | None = None
    size: Size = None
    levels: Levels | None = Field(None, description="values that become 0 and 255; null: those of the pixels' type")
    fit: Fit = "crop"
    background: GreyLevel = 0
    on_error: Literal["raise", "skip"] = Field("raise", description="what to do about pictures that can't be read")
    resident: Resident = "auto"
    shuffle: Shuffle = "full"
    binarize: Binarize = "dynamic"

    @property
    def height_and_width(self) -> tuple[int, int] | None:
        """Return the size that pictures are brought to; None for their own."""
        return sides(self.size)


class FolderConfig(PicturesConfig):
    """The pictures in a folder."""

    builder: ClassVar[str] = "vae_dist.data.folder:load_folder"

    name: Literal["folder"] = "folder"
    root: Path | None = Field(None, description="folder of the pictures, or .zip or .tar file of them")


class CelebaConfig(PicturesConfig):
    """CelebA's faces, in colour."""

    builder: ClassVar[str] = "vae_dist.data.celeba:load_celeba"

    name: Literal["celeba"] = "celeba"
    root: Root = None
    size: Size = 64
    binarize: Colours = "none"


class HuggingFaceConfig(PicturesConfig):
    """The pictures in a data set of Hugging Face."""

    builder: ClassVar[str] = "vae_dist.data.huggingface:load_huggingface"

    name: Literal["huggingface"] = "huggingface"
    root: Path | None = Field(None, description="folder that save_to_disk made, or the set's name on the Hub")
    revision: str | None = Field(None, description="commit, tag or branch on the Hub; null: the latest")
    column: str | None = Field(None, description="with the pictures; null: the only one that has any")


class PackedConfig(DividedConfig):
    """A set that `vae-dist data pack` made."""

    builder: ClassVar[str] = "vae_dist.data.packed:load_packed"

    name: Literal["packed"] = "packed"
    root: Path | None = Field(None, description="folder of the packed set")
    size: Size = None
    fit: Literal["crop", "pad"] | None = Field(
        None, description="how original files are brought to size; null: crop, or as pixels were packed"
    )
    background: GreyLevel | None = Field(
        None, description="grey level below transparent files and around padded ones; null: 0, or as pixels were packed"
    )
    workers: Annotated[Whole, Field(ge=0, lt=1025)] | None = Field(
        None, description="processes that decode original files; null: one on each core that falls to this process"
    )
    resident: Resident = "auto"
    shuffle: Shuffle = "full"
    binarize: Binarize = "dynamic"


class ArrayConfig(DividedConfig):
    """Images in a file of arrays."""

    builder: ClassVar[str] = "vae_dist.data.array:load_array"

    name: Literal["array"] = "array"
    root: Path | None = Field(None, description="the file: .npy, .npz or .safetensors")
    resident: Resident = "auto"
    shuffle: Shuffle = "full"
    binarize: Binarize = "dynamic"


class GivenDataConfig(DividedConfig):
    """Images that were given to `train` from Python."""

    builder: ClassVar[str] = "vae_dist.data.given:not_given"

    name: Literal["given"] = "given"
    binarize: Binarize = "dynamic"


DataConfig = Annotated[
    DigitsConfig
    | MnistConfig
    | BinarizedMnistConfig
    | CifarConfig
    | SvhnConfig
    | CelebaConfig
    | FolderConfig
    | HuggingFaceConfig
    | PackedConfig
    | ArrayConfig
    | GivenDataConfig,
    Kinds(default="digits", key="name", group="vae_dist.datasets"),
]
