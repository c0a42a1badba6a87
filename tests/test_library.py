"""vae-dist from Python: the page docs/library.md as it stands, and what a caller can get wrong."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import TensorDataset

from tests.conftest import clean_environment
from vae_dist import Config, evaluate, load_model, train
from vae_dist.config import DEFAULT_CONFIG, DigitsConfig, GivenDataConfig, load_config, shipped_configs
from vae_dist.data import ResidentDataset, load_dataset
from vae_dist.data.given import as_dataset
from vae_dist.errors import OutOfMemoryError, UsageError, UserError
from vae_dist.models import FlatModel, ImageShape, initial_model
from vae_dist.runs.run import Run
from vae_dist.training.entry import _read

PAGE = Path(__file__).parent.parent / "docs" / "library.md"
SMALL: dict[str, Any] = {
    "model": {"kind": "mlp", "h_dim": 8, "z_dim": 2},
    "train": {"steps": 4, "batch_size": 8, "log_every": 2, "threads": 1, "precision": "fp32"},
}
BYTES = torch.randint(0, 256, (40, 1, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def tiny(image_shape: ImageShape) -> FlatModel:
    model = initial_model(Config(**SMALL).model, image_shape, seed=3)
    assert isinstance(model, FlatModel)
    return model


def test_the_library_page_runs_as_it_stands(tmp_path: Path) -> None:
    program = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    command = [sys.executable, "-W", "error", "-c", program]
    environment = clean_environment(tmp_path)
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "finished 40" in result.stdout
    assert re.search(r"−ELBO \d+\.\d\d ± \d+\.\d\d nats, NLL \d+\.\d\d \(k=10\)", result.stdout)


@pytest.mark.parametrize(
    "data",
    [
        BYTES,
        BYTES[:, 0],
        BYTES.numpy(),
        TensorDataset(BYTES),
        TensorDataset(BYTES, torch.zeros(40)),
        [Image.fromarray(image[0].numpy()) for image in BYTES],
        [(image.float() / 255, "label") for image in BYTES],
        {"train": BYTES},
        ResidentDataset("own", "here", {"train": BYTES}),
    ],
    ids=["tensor", "grey", "array", "dataset", "pairs", "pictures", "floats", "splits", "ours"],
)
def test_images_of_every_kind_are_the_same_bytes(data: Any) -> None:
    dataset = as_dataset(data, GivenDataConfig(binarize="none", val_size=0))
    assert torch.equal(dataset.images("train", range(40)), BYTES)


def test_pictures_in_colour_get_their_channels_first() -> None:
    array = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    dataset = as_dataset([Image.fromarray(array)] * 3, GivenDataConfig(binarize="none", val_size=1))
    assert dataset.image_shape == (3, 6, 5)
    assert torch.equal(dataset.images("val", range(1))[0], torch.from_numpy(array).movedim(-1, 0))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (BYTES.float(), "holds float32, and bytes are needed"),
        (BYTES.movedim(1, -1), r"shape \(40, 6, 5, 1\).*movedim"),
        (BYTES[0, 0], "shape"),
        ({"test": BYTES}, "splits test: give train"),
        ({"train": BYTES, "dev": BYTES}, "splits train, dev"),
        ([], "no images"),
        ([{"image": BYTES[0]}], "gives a dict for an image"),
        ([BYTES[0], BYTES[1] / 254.5], "holds float32"),
        (7, "data is a int"),
        ([BYTES[0], BYTES[0, :, :3]], "no common shape"),
    ],
)
def test_images_that_cannot_be_used_are_refused_in_one_sentence(data: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        as_dataset(data, GivenDataConfig())


def test_splits_may_be_torch_datasets() -> None:
    splits = {"train": TensorDataset(BYTES), "val": TensorDataset(BYTES[:7], torch.zeros(7))}
    dataset = as_dataset(splits, GivenDataConfig(binarize="none"))
    assert torch.equal(dataset.images("train", range(40)), BYTES)
    assert torch.equal(dataset.images("val", range(7)), BYTES[:7])


def test_a_torch_dataset_larger_than_memory_is_refused_after_its_first_image() -> None:
    class Endless(torch.utils.data.Dataset[Tensor]):
        def __len__(self) -> int:
            return 1 << 40

        def __getitem__(self, place: int) -> Tensor:
            assert place == 0
            return BYTES[place]

    with pytest.raises(OutOfMemoryError, match=r"take 30,720\.0 GiB .* are available\. .*data\.resident off"):
        as_dataset(Endless(), GivenDataConfig())


def test_a_run_with_given_images_and_model_goes_on_when_they_are_given_again(tmp_path: Path) -> None:
    whole = train(SMALL | {"train": SMALL["train"] | {"steps": 6}}, tmp_path / "whole", data=BYTES, model=tiny)
    parts = tmp_path / "parts"
    assert train(SMALL, parts, data=BYTES, model=tiny).step == 4
    longer = SMALL | {"train": SMALL["train"] | {"steps": 6}, "optim": {"schedule": "constant"}}
    with pytest.raises(UsageError, match=r"optim\.schedule"):
        train(longer, parts, data=BYTES, model=tiny)
    with pytest.raises(UsageError, match=r"another config: model\.kind"):
        train(SMALL, parts, data=BYTES)
    with pytest.warns(UserWarning, match=r"train\.steps was 4"), pytest.raises(UsageError, match="The train images"):
        train(SMALL | {"train": SMALL["train"] | {"steps": 6}}, parts, data=255 - BYTES, model=tiny)
    with pytest.warns(UserWarning, match=r"train\.steps was 4"):
        assert train(SMALL | {"train": SMALL["train"] | {"steps": 6}}, parts, data=BYTES, model=tiny).step == 6
    assert whole.status == "finished"


def test_a_given_model_is_loaded_when_it_is_given_again(tmp_path: Path) -> None:
    train(SMALL, tmp_path / "run", data=BYTES, model=tiny)
    loaded = load_model(tmp_path / "run", model=tiny)
    assert loaded((BYTES[:2] > 127).float()).shape == (2, 1, 6, 5)
    with pytest.raises(UserError, match=r"tests.test_library.tiny, was given from Python: give it again with model=…"):
        load_model(tmp_path / "run")
    with pytest.raises(UsageError, match="is for images of shape"):
        load_model(tmp_path / "run", model=tiny((1, 4, 4)))


def test_given_images_are_not_looked_for_elsewhere() -> None:
    with pytest.raises(UsageError, match="were given from Python"):
        load_dataset(GivenDataConfig())


def test_a_model_rebuilds_a_batch_and_a_single_image() -> None:
    model = tiny((1, 6, 5)).eval()
    x = (BYTES[:3] > 127).float()
    assert torch.allclose(model(x)[1], model(x[1]))
    with pytest.raises(ValueError, match=r"for images of shape \(1, 6, 5\), and these are \(1, 28, 28\)"):
        model(torch.zeros(1, 28, 28))
    with pytest.raises(ValueError, match=r"pixels in \[0, 1\]"):
        model(BYTES[:3].float())


@pytest.mark.parametrize("make", [lambda wrong: Config(**wrong), Config.model_validate])
def test_a_wrong_key_raises_the_sentence_of_the_command_line(make: Any) -> None:
    with pytest.raises(UsageError, match=r"^unknown key train.stesp; did you mean train.steps\?$"):
        make({"train": {"stesp": 1}})


def test_a_config_is_given_by_name_as_on_the_command_line() -> None:
    assert _read("mnist-mlp") == (load_config(shipped_configs()["mnist-mlp"]), "mnist-mlp")
    assert inspect.signature(train).parameters["config"].default == DEFAULT_CONFIG
    with pytest.raises(UsageError, match="There is no config 'mnist-mpl'"):
        train("mnist-mpl")


def test_the_outcome_carries_the_last_validation_figures(tmp_path: Path) -> None:
    first = train(SMALL, tmp_path / "run", data=BYTES)
    again = train(SMALL, tmp_path / "run", data=BYTES)
    assert first.figures == again.figures
    assert first.figures["split"] == "val"
    assert first.figures["neg_elbo"] == Run(tmp_path / "run").metrics("val")["neg_elbo"][-1]
    without = SMALL | {"data": {"val_size": 0}}
    assert "grad_norm" in train(without, tmp_path / "other", data=BYTES).figures


def test_every_line_of_the_metrics_is_handed_to_on_log(tmp_path: Path) -> None:
    lines: list[Any] = []
    train(SMALL, tmp_path / "run", data=BYTES, on_log=lines.append)
    assert [line["step"] for line in lines] == [1, 2, 4, 4]


def test_a_package_adds_kinds_by_entry_points(tmp_path: Path) -> None:
    """A package with a dataset and a model, installed as far as importlib.metadata sees."""
    (tmp_path / "stripes.py").write_text(
        "from typing import ClassVar, Literal\n"
        "from vae_dist.config.model import FlatModelConfig\n"
        "from vae_dist.config.section import Kind\n\n"
        "class StripesConfig(Kind):\n"
        "    builder: ClassVar[str] = 'stripes:load'\n"
        "    name: Literal['stripes'] = 'stripes'\n"
        "    binarize: Literal['none'] = 'none'\n\n"
        "class SmallConfig(FlatModelConfig):\n"
        "    builder: ClassVar[str] = 'stripes:build'\n"
        "    kind: Literal['small'] = 'small'\n\n"
        "def load(config):\n"
        "    import torch\n"
        "    from vae_dist.data import ResidentDataset\n"
        "    return ResidentDataset('stripes', 'plugin', {'train': torch.arange(640, dtype=torch.int).remainder(256)"
        ".to(torch.uint8).view(10, 1, 8, 8)})\n\n"
        "def build(config, image_shape):\n"
        "    from vae_dist.config import MLPConfig\n"
        "    return MLPConfig(h_dim=4, z_dim=config.z_dim, likelihood=config.likelihood).build(image_shape)\n"
    )
    metadata = tmp_path / "stripes-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: stripes\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[vae_dist.datasets]\na = stripes:StripesConfig\n"
        "[vae_dist.models]\nb = stripes:SmallConfig\nc = stripes:Missing\n"
    )
    settings = ["data=stripes", "model={kind: small, likelihood: gaussian}", "train.steps=2", "train.batch_size=8"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    environment = clean_environment(tmp_path) | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "vae_dist", "train", *arguments]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "stripes (plugin): 10 train" in result.stdout
    assert "small, " in result.stdout
    assert result.stderr.count("stripes:Missing can't be loaded as one of vae_dist.models") == 1


def test_evaluate_scores_on_one_process_by_default() -> None:
    digits = load_dataset(DigitsConfig(val_size=10))
    result = evaluate(tiny((1, 28, 28)).eval(), digits, "val", k=2)
    assert result is not None
    assert (result.images, result.k) == (10, 2)
    assert isinstance(digits.images("val", range(2)), Tensor)
