"""A first config for somebody's pictures: rules of thumb, each with its reason in a comment."""

import math
from typing import Any, NamedTuple

import yaml

from vae_dist.runs.first_data import Entry, Images
from vae_dist.runs.first_models import FirstModel, Purpose, first_model, power_of_two, rounded

MINUTES = 10
MOST_EPOCHS = 1000  # of a few pictures; then they are known by heart
FEWEST_STEPS = 2000  # in ten minutes: of large images a batch has fewer
LARGEST_BATCH, PARTS = 64, 8  # images a step; the parts that a batch is in unless the config says otherwise
GOOD_FOR: dict[Purpose, str] = {
    "rebuild": "rebuilds pictures, and doesn't draw new ones (its prior gives textures)",
    "draw": "draws new pictures, which takes hours where they are photographs, and rebuilds them less well",
}
OTHER: dict[Purpose, Purpose] = {"rebuild": "draw", "draw": "rebuild"}


class Plan(NamedTuple):
    """The values that depend on one another.

    Attributes:
        model: to train.
        batch: images a step.
        images_a_second: roughly, on two cores.
        steps: of the run.
        minutes: that they take, roughly.
    """

    model: FirstModel
    batch: int
    images_a_second: float
    steps: int
    minutes: float

    @property
    def duration(self) -> str:
        """Return how long the run takes, in words."""
        minutes = max(1, round(self.minutes))
        return f"{minutes} minute{'' if minutes == 1 else 's'}"


def plan_for(images: Images, purpose: Purpose) -> Plan:
    """Choose a network and a number of steps that two CPU cores can take in ten minutes."""
    model = first_model(images, purpose)
    affordable = (MINUTES * 60_000 / FEWEST_STEPS - model.ms_a_step) / model.ms_an_image
    batch = power_of_two(min(LARGEST_BATCH, images.training, max(PARTS, affordable)))
    ms_a_step = model.ms_a_step + batch * model.ms_an_image
    in_time, in_epochs = MINUTES * 60_000 / ms_a_step, MOST_EPOCHS * images.training / batch
    steps = rounded(min(in_time, in_epochs))
    return Plan(model, batch, 1000 * batch / ms_a_step, steps, steps * ms_a_step / 60_000)


def first_config(images: Images, plan: Plan) -> str:
    """Write a config in which a comment stands above every value."""
    purpose = plan.model.purpose
    top = (
        f"# Written by vae-dist init for {images.found}.\n"
        f"# This model {GOOD_FOR[purpose]}:\n"
        f"# for the other kind, vae-dist init --for {OTHER[purpose]} --out FILE.\n"
        f"# A place to start from: about {plan.duration} on two idle CPU cores. "
        "Change first train.steps (time), then\n"
        "# data.size (detail), then model.z_dim (how much of a picture is kept). Every key: docs/configuration.md.\n"
    )
    sections = {
        "data": [_section([*images.entries, *plan.model.augmentation]), _held_out(images)],
        "model": [_section(plan.model.entries)],
        "optim": [_section(_optim(plan))],
        "train": [_section(_train(images, plan))],
    }
    return top + "".join(f"{name}:\n{''.join(parts)}" for name, parts in sections.items())


def _optim(plan: Plan) -> list[Entry]:
    return [
        Entry("lr", 1e-3, "peak learning rate; halve it if steps are skipped or the loss jumps"),
        Entry("betas", [0.9, 0.98], "of AdamW; the second forgets large gradients of the first steps sooner"),
        Entry(
            "warmup_steps", max(1, plan.steps // 20), "a twentieth of the steps: the first gradients are the largest"
        ),
        plan.model.clip_norm,
    ]


def _train(images: Images, plan: Plan) -> list[Entry]:
    often = max(1, plan.steps // 20)
    epochs = plan.steps * plan.batch / images.training
    reason = f"{epochs:,.0f} passes at roughly {plan.images_a_second:,.0f} images/s"
    parts = math.gcd(plan.batch, PARTS)
    return [
        Entry("steps", plan.steps, f"{reason}; more for a better model"),
        Entry("batch_size", plan.batch, "images a step; on a GPU 256"),
        *(
            [Entry("micro_batches", parts, "parts of a batch, the most processes there can be")]
            if parts < PARTS
            else []
        ),
        Entry("eval_every", often, "steps: twenty validations, of which the best is kept"),
        Entry("checkpoint_every", often, "steps: the most that are lost at a crash"),
    ]


def _held_out(images: Images) -> str:
    if not images.held_out:
        return ""
    return f"  # val_size: {images.held_out}  (left out: a tenth of train, at most 1,000, is held out to validate on)\n"


def _section(entries: list[Entry]) -> str:
    return "".join(f"  # {why}\n  {key}: {_written(value)}\n" for key, value, why in entries)


def _written(value: Any) -> str:
    """Write a value as YAML on one line, a name of a folder quoted where it must be."""
    text: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=math.inf)
    return text.removesuffix("...\n").strip()
