"""The pictures of a run in its report: what it draws, how that came about, and what it makes of held-out images."""

from collections.abc import Iterable
from pathlib import Path

from vae_dist.inference.examples import Examples, Group
from vae_dist.reporting.embedded import data_uri, uri_of
from vae_dist.reporting.html import element, escaped
from vae_dist.reporting.milestones import Kind, milestones
from vae_dist.runs.run import IMAGES

MOST_MILESTONES = 8
LONGEST_MILESTONE, LONGEST_EXAMPLE = 480, 600  # pixels of their longer sides
ON_THE_WAY: dict[Kind, str] = {
    "samples": "Samples of one seed on the way",
    "reconstructions": "Reconstructions on the way",
}
GROUPS: dict[Group, str] = {
    "first": "Reconstructions: the image, what the model makes of it, and the error",
    "best": "Best rebuilt",
    "worst": "Worst rebuilt",
}
NOTE = {"class": "note"}

Figure = tuple[str, str | None]  # words, and a data URI if there is a picture


def pictures_of(run: Path, examples: Examples | str | None) -> str:
    """Return the pictures of a run as HTML.

    Args:
        run: its folder.
        examples: images with their reconstructions; a sentence that says why there are none; None to say nothing.
    """
    return "".join(
        [
            _section("Samples from the prior", [("", data_uri(run / IMAGES / "samples.png"))]),
            *(_section(title, _on_the_way(run, kind), "small") for kind, title in ON_THE_WAY.items()),
            _examples_of(run, examples),
        ]
    )


def _on_the_way(run: Path, kind: Kind) -> list[Figure]:
    chosen = milestones(run / IMAGES, kind, MOST_MILESTONES)
    return [(f"step {step:,}", data_uri(path, LONGEST_MILESTONE)) for step, path in chosen]


def _examples_of(run: Path, examples: Examples | str | None) -> str:
    """Return images with reconstructions and error maps, or else the picture that the run left."""
    if isinstance(examples, Examples):
        parts = [_section(title, _figures_of(examples, group), "examples") for group, title in GROUPS.items()]
        return "".join(parts) + element("p", escaped(_choice(examples)), **NOTE)
    left = _section("Reconstructions", [("held-out images, reconstructions below", _reconstructions(run))])
    return left + (
        element("p", escaped(f"No error maps, best and worst images: {examples}"), **NOTE) if examples else ""
    )


def _reconstructions(run: Path) -> str | None:
    return data_uri(run / IMAGES / "reconstructions.png")


def _figures_of(examples: Examples, group: Group) -> Iterable[Figure]:
    for index, neg_elbo, picture in examples.groups[group]:
        yield f"{examples.split} {index:,}: {neg_elbo:,.1f} nats", uri_of(picture, LONGEST_EXAMPLE)


def _choice(examples: Examples) -> str:
    """Say of what the best and the worst images are that."""
    figure = "−ELBO" if examples.is_bound else "cross-entropy + rate"
    which = "all" if examples.scored == examples.size else f"the first {examples.scored:,} of"
    return (
        f"Chosen by the {figure} below each, among {which} {examples.size:,} {examples.split} images, scored with the "
        f"noise of the evaluations in training, by {examples.model}. Errors go from black over red and yellow to white."
    )


def _section(title: str, figures: Iterable[Figure], kind: str = "") -> str:
    """Return pictures below a heading; nothing where there is none."""
    shown = [
        element("figure", f'<img src="{uri}" alt="{escaped(title)}">{element("figcaption", escaped(words))}')
        for words, uri in figures
        if uri is not None
    ]
    if not shown:
        return ""
    return element("h3", escaped(title)) + element("div", "".join(shown), **{"class": f"pictures {kind}".strip()})
