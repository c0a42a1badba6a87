"""The operations that the page asks for: each takes the body of a request and returns what the page shows.

The page keeps all state and sends latents along, as base64 of float32 numbers, so that a restarted server goes on.
"""

import base64
import binascii
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from vae_dist.data import Dataset
from vae_dist.data.fitting import Rule
from vae_dist.data.input_images import read_image
from vae_dist.errors import UserError
from vae_dist.inference.drawing import to_picture
from vae_dist.inference.exploration import Exploration, Point

Answer = dict[str, Any]
MOST_SEEDS = 2**53  # that JavaScript can count


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Draw(_Request):
    seed: int = Field(ge=0, lt=MOST_SEEDS)
    temperature: float = Field(ge=0)


class _HeldOut(_Request):
    number: int


class _Move(_Request):
    z: str
    scores: dict[int, float]  # by the number of the slider


class _Walk(_Request):
    start: str
    end: str
    share: float = Field(ge=0, le=1)


class Operations:
    """The requests of the page, by name.

    Args:
        exploration: of the model.
        dataset: whose images can be looked at.
        split: of it.
        rule: by which pictures of any size become images of the model.
    """

    def __init__(self, exploration: Exploration, dataset: Dataset, split: str, rule: Rule) -> None:
        self._exploration, self._dataset, self._split, self._rule = exploration, dataset, split, rule
        self.by_name: dict[str, Callable[[bytes], Answer]] = {
            "draw": self.draw,
            "held-out": self.held_out,
            "picture": self.picture,
            "move": self.move,
            "walk": self.walk,
        }

    def draw(self, body: bytes) -> Answer:
        """Draw from the prior."""
        wanted = _Draw.model_validate_json(body)
        return _answer(self._exploration.draw(wanted.seed, wanted.temperature))

    def held_out(self, body: bytes) -> Answer:
        """Encode an image of the split; after the last one comes the first."""
        number = _HeldOut.model_validate_json(body).number % self._dataset.size(self._split)
        return self._encoded(self._dataset.images(self._split, range(number, number + 1)), number=number)

    def picture(self, body: bytes) -> Answer:
        """Encode the content of a picture's file."""
        image, remarks = read_image(io.BytesIO(body), "That file", self._exploration.model.image_shape, self._rule)
        return self._encoded(image, remarks=remarks)

    def move(self, body: bytes) -> Answer:
        """Move latents away from where they are."""
        wanted = _Move.model_validate_json(body)
        return _answer(self._exploration.move(self._latents(wanted.z), wanted.scores))

    def walk(self, body: bytes) -> Answer:
        """Go a share of the way between two points."""
        wanted = _Walk.model_validate_json(body)
        ends = self._latents(wanted.start), self._latents(wanted.end)
        return _answer(self._exploration.walk(*ends, wanted.share))

    def _encoded(self, image: UInt8[Tensor, "1 c h w"], **more: Any) -> Answer:
        return {**_answer(self._exploration.encode(image)), "original": _data_uri(image[0]), **more}

    def _latents(self, text: str) -> Float[Tensor, "*latent"]:
        """Return latents that `_answer` wrote.

        Raises:
            UserError: they are not this model's, or not finite.
        """
        model = self._exploration.model
        try:
            numbers = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")
        except (binascii.Error, ValueError) as error:
            raise UserError("These are no latents: load the page again.") from error
        if numbers.size != model.latent_size or not np.isfinite(numbers).all():
            raise UserError("These latents are not of this model: load the page again.")
        z = torch.from_numpy(numbers.astype(np.float32)).view(model.latent_shape)
        return z.to(next(model.parameters()).device)


def _answer(point: Point) -> Answer:
    """Return what the page shows of a point.

    Raises:
        UserError: it is so far out that its numbers are not finite.
    """
    if not (point.z.isfinite().all() and np.isfinite(point.scores).all()):
        raise UserError("That is too far out to compute: ask for smaller numbers.")
    z = base64.b64encode(point.z.float().cpu().numpy().astype("<f4").tobytes()).decode()
    return {"z": z, "image": _data_uri(point.image), "scores": point.scores}


def _data_uri(image: UInt8[Tensor, "c h w"]) -> str:
    content = io.BytesIO()
    to_picture(image).save(content, format="png", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
