"""The figures of a run in plain words: what they mean, said once at its start, and what they came to at its end."""

from pathlib import Path

from vae_dist.config import Config
from vae_dist.data.augmentation import Augmentation
from vae_dist.reporting.comparison import last_lines


def names_of(config: Config) -> dict[str, str]:
    """Return what the terminal calls the −ELBO and its parts: of grey levels under a Bernoulli a cross-entropy."""
    if config.has_likelihood:
        return {"neg_elbo": "−ELBO", "distortion": "distortion", "rate": "rate"}
    return {"neg_elbo": "cross-entropy + rate", "distortion": "cross-entropy", "rate": "rate"}


def meaning_of_figures(config: Config, *, spatial: bool, held_out: bool) -> str:
    """Explain the figures of training and of evaluations.

    Args:
        config: of the run. With a perceptual term or an adversary, a lower −ELBO is not what is wanted.
        spatial: whether latents are; then how many are active says little.
        held_out: whether there are validation images, of which active units are counted.
    """
    names = names_of(config)
    lower = ", lower is better" if config.is_elbo_alone else ""
    active = "; active: latents in use" if held_out and not spatial else ""
    return (
        f"nats an image{lower}: {names['neg_elbo']} = {names['distortion']} (how badly images are rebuilt) + rate "
        f"(how much the latents say){active}"
    )


def final_figures(run: Path, config: Config, *, spatial: bool) -> str:
    """Return what a run came to on validation images, and how much better it does on those that it was trained on.

    Nothing where no images are held out. The gap is left out where training images are harder, being augmented, or
    another loss is minimized than the −ELBO; and early in a run, when images seen first cost more than those held out.
    """
    last = last_lines(run)
    val, train = (last.get(split, {}).get("neg_elbo") for split in ("val", "train"))
    if not isinstance(val, float):
        return ""
    parts = [f"val {names_of(config)['neg_elbo']} {val:.2f} nats"]
    if not spatial:
        parts.append(f"{last['val'].get('active_units')}/{last['val'].get('latent_units')} latents used")
    comparable = config.is_elbo_alone and not Augmentation.of(config.data)
    if comparable and isinstance(train, float) and val > train:
        parts.append(f"train–val gap {val - train:.2f} nats")
    return "; ".join(parts)
