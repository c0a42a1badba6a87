"""Maps by UMAP, of the package umap-learn, which is optional."""

import warnings
from importlib.util import find_spec

import torch
from jaxtyping import Float
from torch import Tensor

from vae_dist.errors import UsageError
from vae_dist.inference.latent_map import Plane

NEIGHBOURS, SEED = 15, 0
FEWEST = 5  # rows


def check_umap(rows: int) -> None:
    """Check that so many rows can be laid out.

    Raises:
        UsageError: they are too few, or the package isn't there.
    """
    if find_spec("umap") is None:
        raise UsageError("vae-dist map --method umap needs umap-learn: pip install 'vae-dist[umap]'.")
    if rows < FEWEST:
        raise UsageError(f"UMAP needs {FEWEST} images, and there are {rows}: leave --method umap out.")


def umap_plane(rows: Float[Tensor, "n d"]) -> Plane:
    """Lay rows out so that neighbours stay neighbours (McInnes et al., arXiv:1802.03426), the same at every call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has one about a part that needs TensorFlow, and others for its authors
        from umap import UMAP

        umap = UMAP(n_neighbors=min(NEIGHBOURS, len(rows) - 1), random_state=SEED, n_jobs=1)
        points = torch.from_numpy(umap.fit_transform(rows.numpy())).double()
    return Plane(points, f"UMAP, {umap.n_neighbors} neighbours: near ones stay near, axes and distances mean little")
