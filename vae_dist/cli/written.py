"""Say what a command wrote, and show it in the terminal where that is asked for."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from vae_dist.cli.terminal import print_sentences

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from torch import Tensor


def print_written(out: Path, about: object = "", *, replaced: bool, stream: TextIO | None = None) -> None:
    """Print the path of a file, whether it has taken another's place, and what is in it."""
    path = f"{out} (replaced)" if replaced else str(out)
    print_sentences(f"{path}: {about}" if about else path, stream)


def show_in_terminal(images: "UInt8[Tensor, 'n c h w']", out: Path) -> None:
    """Show images in blocks of colour; where the output is no terminal, or has no colours, say where they are."""
    from rich.console import Console

    from vae_dist.reporting.half_blocks import can_show, show_images

    console = Console()
    if not can_show(console):
        print_sentences(f"--show needs a terminal with colours: the pictures are in {out}.", sys.stderr)
        return
    shown = show_images(console, images)
    if shown < len(images):
        print(f"Above: the first {shown:,} of {len(images):,}. A larger window has room for more.")
