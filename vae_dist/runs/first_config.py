"""A first config for somebody's pictures: rules of thumb, each with its reason in a comment."""

import math
from typing import Any, NamedTuple

import yaml

from vae_dist.runs.first_data import Entry, Images

# Milliseconds on one core of a Xeon, measured once: conv with 3 blocks, flow prior, logistic mixture of 3, fp32. What a
# second core saves is left for validation and for slower processors.
MS_A_STEP = 17.0  # whatever it holds
MS_A_VALUE = 0.45e-3  # of an image, in the likelihood
MS_A_POSITION = {32: 0.75 / 64, 64: 1.9 / 64}  # of an image, in a network of so many channels
MINUTES = 10
MOST_EPOCHS = 1000  # of a few pictures; then they are known by heart
FEWEST_STEPS = 2000  # in ten minutes: of large images a batch has fewer
LARGEST_BATCH, PARTS = 64, 8  # images a step; the parts that a batch is in unless the config says otherwise
SMALL_SIDE = 32  # pixels, up to which patches are of 4
FEW, MANY = 1_000, 10_000  # pictures


class Plan(NamedTuple):
    """The values that depend on one another.

    Attributes:
        patch: side in pixels.
        width: channels of the network.
        batch: images a step.
        images_a_second: roughly, on two cores.
        steps: of the run.
        minutes: that they take, roughly.
    """

    patch: int
    width: int
    batch: int
    images_a_second: float
    steps: int
    minutes: float

    @property
    def duration(self) -> str:
        """Return how long the run takes, in words."""
        minutes = max(1, round(self.minutes))
        return f"{minutes} minute{'' if minutes == 1 else 's'}"


def plan_for(images: Images) -> Plan:
    """Choose a network and a number of steps that two CPU cores can take in ten minutes."""
    side = max(images.shape[1:])
    patch, width = (4, 32) if side <= SMALL_SIDE else (8, 64)
    patch = min(patch, _power_of_two(min(images.shape[1:])))  # none is larger than an image
    positions = math.prod(-(-length // patch) for length in images.shape[1:])
    ms_an_image = MS_A_VALUE * math.prod(images.shape) + MS_A_POSITION[width] * positions
    affordable = (MINUTES * 60_000 / FEWEST_STEPS - MS_A_STEP) / ms_an_image
    batch = _power_of_two(min(LARGEST_BATCH, images.training, max(PARTS, affordable)))
    ms_a_step = MS_A_STEP + batch * ms_an_image
    in_time, in_epochs = MINUTES * 60_000 / ms_a_step, MOST_EPOCHS * images.training / batch
    steps = _rounded(min(in_time, in_epochs))
    return Plan(patch, width, batch, 1000 * batch / ms_a_step, steps, steps * ms_a_step / 60_000)


def first_config(images: Images, plan: Plan) -> str:
    """Write a config in which a comment stands above every value."""
    top = (
        f"# Written by vae-dist init for {images.found}.\n"
        f"# A place to start from: about {plan.duration} on two idle CPU cores. "
        "Change first train.steps (time), then\n"
        "# data.size (detail), then model.z_dim (how much of a picture is kept). Every key: docs/configuration.md.\n"
    )
    sections = {
        "data": [_section(images.entries), _held_out(images)],
        "model": [_section(_model(images, plan))],
        "optim": [_section(_optim(images, plan))],
        "train": [_section(_train(images, plan))],
    }
    return top + "".join(f"{name}:\n{''.join(parts)}" for name, parts in sections.items())


def _model(images: Images, plan: Plan) -> list[Entry]:
    height, width = (-(-length // plan.patch) for length in images.shape[1:])
    by_count = 32 if images.training < FEW else 64 if images.training < MANY else 128
    z_dim = max(2, min(by_count, math.prod(images.shape) // 8))
    return [
        Entry("kind", "conv", "the first choice for minutes to an hour; hierarchical is for long runs"),
        Entry("width", plan.width, "channels; twice as many take up to twice the time, which pays in longer runs"),
        Entry("blocks", 3, "residual blocks each way; more help in runs of an hour"),
        Entry(
            "patch",
            plan.patch,
            f"pixels: {height} × {width} positions; half has four times as many, and is slower",
        ),
        Entry("z_dim", z_dim, f"latent dimensions, for {images.training:,} pictures; raise it if all are active"),
        Entry("prior", "flow", "learned, the cheapest gain in likelihood; normal is plainer and a little faster"),
        Entry(
            "likelihood",
            {"kind": "logistic-mixture", "components": 3},
            "of 256 levels, so bits/dim compare with papers; gaussian: up to three times faster, no bits/dim",
        ),
    ]


def _optim(images: Images, plan: Plan) -> list[Entry]:
    values = math.prod(images.shape)
    return [
        Entry("lr", 1e-3, "peak learning rate; halve it if steps are skipped or the loss jumps"),
        Entry("betas", [0.9, 0.98], "of AdamW; the second forgets large gradients of the first steps sooner"),
        Entry(
            "warmup_steps", max(1, plan.steps // 20), "a twentieth of the steps: the first gradients are the largest"
        ),
        Entry(
            "clip_norm", float(_rounded(values)), f"a nat for each of the {values:,} values; only outliers are clipped"
        ),
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


def _rounded(number: float) -> int:
    """Round to two digits, as 7,500."""
    return max(1, int(float(f"{number:.2g}")))


def _power_of_two(number: float) -> int:
    """Return the largest power of two that isn't above a number from 1."""
    return 1 << int(math.log2(number))
