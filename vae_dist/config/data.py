"""The datasets that a config can name. To add one, add a class and its name in the union at the end."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vae_dist.config.section import Count, CountOrZero, Kind, Kinds

Binarization = Literal["dynamic", "static", "none"]
Binarize = Annotated[
    Binarization,
    Field(description="dynamic: a fresh Bernoulli draw at every use; static: one fixed draw; none: levels as they are"),
]
Root = Annotated[Path | None, Field(description="folder to look in before VAE_DIST_DATA and the cache")]
ValSize = Annotated[
    CountOrZero | None, Field(description="images held out at the end of train; null: the data's own number")
]


class DigitsConfig(Kind):
    """The 10,000 digits that come with the package."""

    builder: ClassVar[str] = "vae_dist.data.digits:load_digits"

    name: Literal["digits"] = "digits"
    binarize: Binarize = "dynamic"
    val_size: ValSize = None


class MnistConfig(Kind):
    """MNIST or Fashion-MNIST."""

    builder: ClassVar[str] = "vae_dist.data.mnist:load_mnist"

    name: Literal["mnist", "fashion-mnist"] = Field("mnist", description="which of the two sets")
    root: Root = None
    binarize: Binarize = "dynamic"
    val_size: ValSize = None


class BinarizedMnistConfig(Kind):
    """Larochelle's fixed draw of MNIST, which comes with a validation split."""

    builder: ClassVar[str] = "vae_dist.data.binarized_mnist:load_binarized_mnist"

    name: Literal["binarized-mnist"] = "binarized-mnist"
    root: Root = None
    binarize: Literal["static"] = Field("static", description="the images are a fixed draw already")


class FolderConfig(Kind):
    """The pictures in a folder."""

    builder: ClassVar[str] = "vae_dist.data.folder:load_folder"

    name: Literal["folder"] = "folder"
    root: Path | None = Field(None, description="where the pictures are")
    size: Count | None = Field(None, description="pixels, height and width; null: the pictures' own")
    binarize: Binarize = "dynamic"
    val_size: ValSize = None


class GivenDataConfig(Kind):
    """Images that were given to `train` from Python."""

    builder: ClassVar[str] = "vae_dist.data.given:not_given"

    name: Literal["given"] = "given"
    binarize: Binarize = "dynamic"
    val_size: ValSize = None


DataConfig = Annotated[
    DigitsConfig | MnistConfig | BinarizedMnistConfig | FolderConfig | GivenDataConfig,
    Kinds(default="digits", key="name", group="vae_dist.datasets"),
]
