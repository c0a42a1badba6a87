"""The page of a model: one file that loads nothing from elsewhere, and speaks with its server alone."""

from pathlib import Path

from vae_dist import reporting
from vae_dist.inference.exploration import Exploration
from vae_dist.printable import one_line
from vae_dist.reporting.html import data_block, page

HERE = Path(__file__).parent
STYLES = (Path(reporting.__file__).parent / "report.css", HERE / "page.css")
REACH = 3.0  # standard deviations to either side


def explorer_page(exploration: Exploration, run: str, facts: str, split: str, images: int, note: str) -> str:
    """Return the page.

    Args:
        exploration: of the model.
        run: its name.
        facts: about the model.
        split: whose images can be looked at.
        images: how many it has.
        note: on draws from the prior.
    """
    directions = exploration.directions
    named = zip(directions.names, directions.activity, strict=True)
    data = {
        "run": one_line(run),
        "facts": one_line(facts),
        "note": note,
        "split": split,
        "images": images,
        "reach": REACH,
        "explanation": directions.explanation,
        "latents": [{"name": name, "activity": activity} for name, activity in named],
    }
    body = (HERE / "page.html").read_text(encoding="utf-8") + data_block("model", data)
    style = "".join(path.read_text(encoding="utf-8") for path in STYLES)
    return page(one_line(run), style, (HERE / "page.js").read_text(encoding="utf-8"), body, asks_server=True)
