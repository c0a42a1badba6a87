"""Format the last message of a run."""

import shlex
from pathlib import Path


def finished(run: Path, figures: str, caution: str | None, *, spatial: bool, split: str) -> str:
    """Say what a run came to, where the results are, and which commands to give next.

    Args:
        run: its folder.
        figures: of its last evaluation, in words; empty where there was none.
        caution: that the last weights are not the best, which is said first.
        spatial: whether latents are, so that pictures are rebuilt and draws from the prior show textures.
        split: to score first, "val" if there is one.
    """
    first = f"{caution}\n" if caution else ""
    pictures = "reconstructions.png" if spatial else "samples.png, reconstructions.png"
    name = shlex.quote(str(run))
    return (
        f"{first}Finished{f': {figures}' if figures else '.'}\n"
        f"Pictures: {run}/images/{pictures}\n"
        f"Checkpoints: {run}/checkpoints\n"
        f"Figures: vae-dist evaluate {name} --split {split}{' --metrics psnr,ssim' if spatial else ''}\n"
        f"Next: vae-dist {'reconstruct' if spatial else 'sample'} {name}"
    )


def stopped(step: int, saved: int, command: str) -> str:
    """Say after which step a run stopped, and what goes on from where."""
    there = "there" if saved == step else f"step {saved:,}"
    return f"Stopped at step {step:,}. {command} goes on from {there}."


def stopped_at_once(step: int, saved: int, lost: int, command: str) -> str:
    """Say what a second Ctrl-C has cost: `lost` of the steps since the last checkpoint, which changed the weights."""
    if not lost:
        return f"Stopped at once, at step {step:,}; no step is lost."
    steps = "1 step is" if lost == 1 else f"{lost:,} steps are"
    where = f"the checkpoint of step {saved:,}" if saved else "the beginning"
    return f"Stopped at once: {steps} lost. {command} goes on from {where}."
