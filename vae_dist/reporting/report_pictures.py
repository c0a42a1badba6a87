"""The pictures of runs in a report: what each draws, how that came about, and what it makes of held-out images."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from vae_dist.inference.examples import Examples, Group
from vae_dist.reporting.embedded import data_uri, uri_of
from vae_dist.reporting.html import element, escaped
from vae_dist.reporting.milestones import Kind, milestones
from vae_dist.runs.run import IMAGES

SAMPLES, PAIRS = "samples.png", "reconstructions.png"  # that a run drew last
LAST = {SAMPLES: "Samples from the prior", PAIRS: "Held-out images, reconstructions below"}
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


def side_by_side(runs: Sequence[Path]) -> str:
    """Return what each run drew last, as HTML."""
    sections = [
        _section(title, [(str(run), data_uri(run / IMAGES / name)) for run in runs], "runs")
        for name, title in LAST.items()
    ]
    return element("h2", "Pictures side by side") + "".join(sections) if any(sections) else ""


def pictures_of(run: Path, examples: Examples | str | None, *, several: bool) -> str:
    """Return the pictures of a run as HTML.

    Args:
        run: its folder.
        examples: images with their reconstructions; a sentence that says why there are none; None to say nothing.
        several: whether what the run drew last is shown beside that of others.
    """
    pairs = [] if isinstance(examples, Examples) else [PAIRS]  # examples show more
    return "".join(
        [
            *(_section(LAST[name], [("", data_uri(run / IMAGES / name))]) for name in [SAMPLES, *pairs] if not several),
            *(_section(title, _on_the_way(run, kind), "small") for kind, title in ON_THE_WAY.items()),
            _examples_of(examples) if isinstance(examples, Examples) else _note(examples),
        ]
    )


def _on_the_way(run: Path, kind: Kind) -> list[Figure]:
    chosen = milestones(run / IMAGES, kind, MOST_MILESTONES)
    return [(f"step {step:,}", data_uri(path, LONGEST_MILESTONE)) for step, path in chosen]


def _examples_of(examples: Examples) -> str:
    """Return images with reconstructions and error maps, and a note on how the best and the worst were chosen."""
    sections = [_section(title, _figures_of(examples, group), "examples") for group, title in GROUPS.items()]
    figure = "−ELBO" if examples.is_bound else "cross-entropy + rate"
    which = "all" if examples.scored == examples.size else f"the first {examples.scored:,} of"
    note = (
        f"Chosen by the {figure} below each, among {which} {examples.size:,} {examples.split} images, scored with the "
        f"noise of the evaluations in training, by {examples.model}. Errors go from black over red and yellow to white."
    )
    return "".join(sections) + element("p", escaped(note), **NOTE)


def _figures_of(examples: Examples, group: Group) -> Iterable[Figure]:
    for place, neg_elbo, picture in examples.groups[group]:
        yield f"{examples.split} {place:,}: {neg_elbo:,.1f} nats", uri_of(picture, LONGEST_EXAMPLE)


def _note(reason: str | None) -> str:
    return element("p", escaped(f"No error maps, and no best and worst images. {reason}"), **NOTE) if reason else ""


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
