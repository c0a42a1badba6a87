"""The report of one or several runs: a single HTML file that needs nothing else."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from vae_dist import __version__
from vae_dist.config import Section
from vae_dist.inference.drawing import COLOURS
from vae_dist.inference.examples import Examples
from vae_dist.reporting.chart_svg import colour_class, hover_data, svg_of
from vae_dist.reporting.charts import Panel
from vae_dist.reporting.comparison import FIGURES, differing_values, figures_of, last_lines, written
from vae_dist.reporting.curves import panels_of
from vae_dist.reporting.html import data_block, element, escaped, page, table
from vae_dist.reporting.report_pictures import pictures_of, side_by_side
from vae_dist.runs.run import CONFIG, Run

HERE = Path(__file__).parent
LONGEST_BLOCK = 50_000  # characters of a config, or of commands
MOST_STARTS = 20  # of a run that are shown
NOTE, ENTRY = {"class": "note"}, {"class": "entry"}
PROTOCOL = ("split", "images", "k", "seed", "binarization", "precision", "noise")


def report(runs: Sequence[Path], examples: Iterable[Examples | str] = ()) -> str:
    """Return the page about some runs.

    Args:
        runs: their folders.
        examples: of each, held-out images with their reconstructions, or a sentence that says why there are none. They
            are asked for when all runs have been read.

    Raises:
        UserError: one is no run, or its files can't be read.
    """
    names, panels = [str(run) for run in runs], panels_of(runs)
    title = f"Report of {', '.join(Path(name).name or name for name in names)}"
    body = "".join(
        [
            element("h1", escaped(title)),
            element("p", f"Made by vae-dist {__version__}. Figures are in nats an image; lower is better.", **NOTE),
            _figures(runs, names),
            _curves(panels, names),
            side_by_side(runs) if len(runs) > 1 else "",
            *(
                _one_run(run, number, of_run, several=len(runs) > 1)
                for number, (run, of_run) in enumerate(zip_longest(runs, examples))
            ),
            data_block("curves", hover_data(panels, names)),
        ]
    )
    return page(title, (HERE / "report.css").read_text() + _colours(), (HERE / "report.js").read_text(), body)


def _colours() -> str:
    rules = (
        f".line.{name}{{stroke:{colour}}}.dot.{name}{{fill:{colour}}}.key.{name},i.{name}{{background:{colour}}}"
        for name, colour in ((colour_class(number), colour) for number, colour in enumerate(COLOURS))
    )
    return "".join(rules)


def _figures(runs: Sequence[Path], names: Sequence[str]) -> str:
    """Return the figures of all runs, their protocol, and in what several differ."""
    figures = [figures_of(run) for run in runs]
    rows = [[name, *(written(of[key]) for of in figures)] for key, name in FIGURES.items()]
    protocol = ["protocol of val", *(_protocol(run) for run in runs)]
    parts = [element("h2", "Figures"), table(["", *names], [*rows, protocol])]
    if len(runs) > 1:
        differing = [[key, *map(written, row)] for key, row in differing_values(runs).items()]
        parts += [element("h3", "What differs in their configs"), table(["key", *names], differing)]
    return "".join(parts)


def _protocol(run: Path) -> str:
    line, config = last_lines(run).get("val"), Run(run).config
    if line is None:
        return written(None)
    known = [f"{name} {line[name]}" for name in PROTOCOL if name in line]
    weights = "raw" if config.optim.ema is None else "averaged (EMA)"
    kind = "likelihood" if config.has_likelihood else "cross-entropy on grey levels (no likelihood)"
    return f"{', '.join(known)}, {weights} weights, {config.model.likelihood.kind} {kind}"


def _curves(panels: Sequence[Panel], names: Sequence[str]) -> str:
    if not panels:
        return element("p", "Nothing was logged yet.", **NOTE)
    labels = ("train", "val") if len(names) == 1 else names
    keys = " ".join(
        element("span", f"{element('span', **{'class': f'key {colour_class(number)}'})}{escaped(name)}", **ENTRY)
        for number, name in enumerate(labels)
    )
    thick = "" if len(names) == 1 else " Thin: training; thick: validation."
    note = f"Over steps. The first twentieth of a run may run off the axes.{thick} Point at a curve for its values."
    shown = (
        element(
            "div", f"<b>{escaped(panel.title)}</b>{svg_of(panel)}<div class='tip' hidden></div>", **{"class": "panel"}
        )
        for panel in panels
    )
    return (
        element("h2", "Curves")
        + element("p", keys)
        + element("p", note, **NOTE)
        + element("div", "".join(shown), **{"class": "panels"})
    )


def _one_run(run: Path, number: int, examples: Examples | str | None, *, several: bool) -> str:
    """Return pictures, config, environment and commands of a run."""
    key = element("span", **{"class": f"key {colour_class(number)}"}) if several else ""
    provenance = Run(run).provenance
    starts = [start for start in provenance.get("starts", []) if isinstance(start, dict)]
    parts = [
        element("h2", f"{key}{escaped(run)}"),
        pictures_of(run, examples, several=several),
        _rates(last_lines(run).get("val", {}), number if several else 1),
        element("h3", "Config: what differs from the defaults"),
        table(["key", "value", "default"], changed_values(Run(run).config)),
        element("details", element("summary", "All values") + _block(Run(run).config.to_yaml())),
        element("h3", "Environment"),
        table(
            ["start", "from step", "processes", "device", "python", "versions", "commit"],
            map(_start, starts[-MOST_STARTS:]),
        ),
        element("h3", "Commands"),
        _block("\n".join(_commands(run, starts))),
    ]
    return "".join(parts)


def _block(text: str) -> str:
    return element("pre", escaped(text, LONGEST_BLOCK))


def _rates(line: Mapping[str, Any], colour: int) -> str:
    """Return bars of the rate of each latent group, where there are several."""
    rates = line.get("rate_per_group")
    if not isinstance(rates, list) or not 1 < len(rates) <= 200 or not all(isinstance(rate, float) for rate in rates):
        return ""
    most = max(*rates, 1e-9)
    bars = (
        f'<div class="bar"><i class="{colour_class(colour)}" style="width:{60 * max(0.0, rate) / most:.1f}%"></i>'
        f"{number}: {rate:.2f}</div>"
        for number, rate in enumerate(rates, 1)
    )
    return element("h3", "Rate of each latent group, from the top, in nats") + "".join(bars)


def changed_values(config: Section, prefix: str = "", default: Section | None = None) -> list[tuple[str, str, str]]:
    """Return the keys of a config that differ from the defaults of their kind, with value and default.

    A section of another kind than the default names its kind; its other keys are compared with that kind's defaults.
    """
    default, rows = default or type(config)(), list[tuple[str, str, str]]()
    for name, value in config:
        usual, key = getattr(default, name), f"{prefix}{name}"
        if not isinstance(value, Section):
            rows += [(key, written(value), written(usual))] if value != usual else []
        elif type(value) is type(usual):
            rows += changed_values(value, f"{key}.", usual)
        else:
            rows += [(key, _kind(value), _kind(usual)), *changed_values(value, f"{key}.")]
    return rows


def _kind(section: Section) -> str:
    return str(getattr(section, "kind", getattr(section, "name", "")))


def _start(start: Mapping[str, Any]) -> tuple[str, ...]:
    versions = start.get("versions")
    named = ", ".join(f"{name} {number}" for name, number in versions.items()) if isinstance(versions, dict) else ""
    known = [str(start.get(key, "")) for key in ("time", "from_step", "processes", "device", "python")]
    return (*known, named, str(start.get("commit") or "not from a checkout"))


def _commands(run: Path, starts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the commands that made the run, one that repeats it, and those that score and show it."""
    name = shlex.quote(str(run))
    given = [start["argv"][1:] for start in starts if isinstance(start.get("argv"), list)]
    unique = dict.fromkeys(shlex.join(["vae-dist", *map(str, words)]) for words in given)
    return [
        "# It was trained by",
        *list(unique)[-MOST_STARTS:],
        "# The same again, into another folder",
        f"vae-dist train {shlex.quote(str(run / CONFIG))} --out NEW_FOLDER",
        "# Figures and pictures",
        f"vae-dist evaluate {name} --split val --k 1000",
        f"vae-dist sample {name}",
    ]
