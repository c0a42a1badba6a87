"""Format the last message of a run."""

from pathlib import Path


def finished(run: Path, caution: str | None, command: str) -> str:
    """Say where the results are, and which command to give next; first, where the last weights are not the best."""
    first = f"{caution}\n" if caution else ""
    return (
        f"{first}Finished. Pictures: {run}/images/samples.png and {run}/images/reconstructions.png\n"
        f"Checkpoints: {run}/checkpoints\n"
        f"Next: vae-dist {command} {run}"
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
