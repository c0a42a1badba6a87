"""Traversals move along one direction at a time, as far as images go; maps show the plane of most variance."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from vae_dist.cli.map import map_latents
from vae_dist.cli.traverse import traverse as traverse_command
from vae_dist.config import Config
from vae_dist.data import ResidentDataset
from vae_dist.data.fitting import Rule
from vae_dist.data.picture_list import ListedPictures, folders_of, pictures_below
from vae_dist.distributions.gaussian import DiagonalGaussian
from vae_dist.distributions.likelihoods import Gaussian
from vae_dist.distributions.priors import StandardNormal
from vae_dist.errors import UsageError, UserError
from vae_dist.inference import umap_plane as umap_module
from vae_dist.inference.directions import find_directions
from vae_dist.inference.latent_map import draw_map, principal_plane
from vae_dist.inference.traversal import traverse
from vae_dist.inference.umap_plane import check_umap, umap_plane
from vae_dist.models import FlatModel
from vae_dist.training import train


class Pixels(FlatModel):
    """Latents that are the pixels of an image, with a deviation of 0.1."""

    def __init__(self) -> None:
        super().__init__((1, 1, 3), 3, Gaussian(0.1), StandardNormal(3))
        self.scale = torch.nn.Parameter(torch.ones(()))

    def encode(self, x: Tensor) -> DiagonalGaussian:
        return DiagonalGaussian(x.flatten(1), torch.full_like(x.flatten(1), 0.1))

    def decode(self, z: Tensor) -> Tensor:
        images: Tensor = z.unflatten(1, self.image_shape) * self.scale
        return images


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps."""
    folder = tmp_path_factory.mktemp("pictures") / "run"
    sections = {
        "model": {"h_dim": 8, "z_dim": 3},
        "data": {"val_size": 16},
        "train": {"steps": 2, "batch_size": 16, "micro_batches": 2, "threads": 1},
    }
    train(Config.model_validate(sections), folder)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Pictures in two folders."""
    for number, name in enumerate(("b/2.png", "b/1.png", "a/deep/3.png")):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (30, 28), 80 * number).save(path)
    return tmp_path / "set"


def test_directions_of_a_flat_latent_are_its_dimensions_the_most_active_first() -> None:
    images = torch.zeros(100, 1, 1, 3, dtype=torch.uint8)
    images[::2, ..., 1], images[::2, ..., 0], images[..., 2] = 255, 51, 102
    directions = find_directions(Pixels().eval(), ResidentDataset("", "", {"train": images}), "train", 3)
    assert directions.names == ["latent 1", "latent 0", "latent 2"]
    assert directions.activity == pytest.approx([0.25, 0.01, 0.0], abs=1e-6)
    assert directions.mean.tolist() == pytest.approx([0.1, 0.5, 0.4])
    stds = [(activity + 0.1**2) ** 0.5 for activity in directions.activity]  # of draws from the posteriors
    assert torch.allclose(directions.steps, torch.tensor(stds).unsqueeze(1) * torch.eye(3)[[1, 0, 2]])


def test_a_row_of_a_traversal_moves_its_latent_alone() -> None:
    model = Pixels().eval()
    images = (torch.rand(50, 1, 1, 3, generator=torch.Generator().manual_seed(0)) * 255).byte()
    directions = find_directions(model, ResidentDataset("", "", {"train": images}), "train", 3)
    rows = traverse(model, torch.tensor([0.2, 0.4, 0.6]), directions, steps=5, reach=1.0)
    assert rows.shape == (3, 5, 1, 1, 3)
    for name, row, step in zip(directions.names, rows[:, :, 0, 0], directions.steps, strict=True):
        moving = int(name.removeprefix("latent "))
        resting = [latent for latent in range(3) if latent != moving]
        assert (row[:, resting] == torch.tensor([51, 102, 153])[resting]).all()
        ends = (directions.mean[moving] + torch.tensor([-1, 1]) * step[moving]).clamp(0, 1)
        assert row[[0, -1], moving].tolist() == (255 * ends).round().tolist()


def test_the_plane_of_a_map_is_that_of_most_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.randn(200, 2, generator=generator) * torch.tensor([5.0, 1.0])
    basis, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator))
    plane = principal_plane(flat @ basis[:, :2].T + 7)
    one, two = map(int, re.findall(r"(\d+)%", plane.axes))
    assert one > 90
    assert one + two == 100
    distances = torch.cdist(flat, flat)
    assert torch.allclose(torch.cdist(plane.points, plane.points).float(), distances, atol=1e-3)


@pytest.mark.skipif(find_spec("umap") is None, reason="needs vae-dist[umap]")
@pytest.mark.parametrize("images", [5, 40])
def test_a_map_by_umap_is_the_same_at_every_call(images: int) -> None:
    rows = torch.randn(images, 6, generator=torch.Generator().manual_seed(0))
    plane = umap_plane(rows)
    assert plane.points.shape == (images, 2)
    assert plane.points.isfinite().all()
    assert torch.equal(umap_plane(rows).points, plane.points)


def test_umap_is_refused_for_a_few_images_and_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(umap_module, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'vae-dist\[umap\]'"):
        check_umap(100)
    monkeypatch.setattr(umap_module, "find_spec", lambda name: True)
    with pytest.raises(UsageError, match="UMAP needs 5 images, and there are 4"):
        check_umap(4)


@pytest.mark.parametrize("rows", [torch.zeros(3, 4), torch.tensor([[0.0], [1.0]]), torch.rand(2, 9)])
def test_a_map_of_hardly_anything_is_drawn(rows: Tensor) -> None:
    plane = principal_plane(rows)
    assert plane.points.isfinite().all()
    sheet = draw_map(plane, lambda number: torch.zeros(1, 2, 2, dtype=torch.uint8), ["a\x1b"] * len(rows))
    assert sheet.size[0] == sheet.size[1]


def test_pictures_are_found_in_folders_below_and_read_when_asked_for(folders: Path) -> None:
    paths = pictures_below([folders, folders / "b" / "1.png"])
    assert [path.name for path in paths] == ["3.png", "1.png", "2.png", "1.png"]
    assert folders_of(paths) == ("deep", "b", "b", "b")
    listed = ListedPictures(paths, (1, 28, 28), Rule(height=28, width=28), "static")
    assert listed.images("pictures", range(2)).shape == (2, 1, 28, 28)
    assert torch.equal(listed.images("pictures", range(1, 2)), listed.images("pictures", torch.tensor([0, 1]))[1:])
    assert set(listed.images("pictures", range(4)).unique().tolist()) <= {0, 255}
    (folders / "empty").mkdir()
    with pytest.raises(UserError, match="There is no picture in the folder"):
        pictures_below([folders / "empty"])


def test_traverse_and_map_write_pictures(
    run: Path, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    traverse_command(run, latents=9, steps=4, out=tmp_path / "rows.png")
    with Image.open(tmp_path / "rows.png") as rows:
        assert rows.size == (4 * 58 + 2, 3 * (60 + 16))
        assert rows.info["command"] == "vae-dist traverse"
    map_latents(run, out=tmp_path / "map.png")
    map_latents(run, pictures=[folders], out=tmp_path / "folders.png")
    assert "16 val images" in (printed := capsys.readouterr().out)
    assert "3 pictures" in printed
