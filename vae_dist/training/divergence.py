"""Diagnosis of a run whose gradients stop being usable."""

from torch import nn

from vae_dist.errors import UserError

MAX_SKIPPED_IN_A_ROW = 50


def first_bad_tensor(module: nn.Module) -> str:
    """Name the tensor of a module in which numbers stopped being finite, weights before gradients."""
    for name, parameter in module.named_parameters():
        if not parameter.isfinite().all():
            return f"the weights {name} are not finite"
    for name, parameter in module.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return f"first in the gradient of {name}"
    return "all tensors are finite, and so the norm is beyond the limit"


def check_skipped(skipped_in_a_row: int, step: int, module: nn.Module) -> None:
    """End a run that only skips steps.

    Args:
        skipped_in_a_row: steps, up to the last one.
        step: number of steps up to then.
        module: the model, with the gradient of a skipped step.

    Raises:
        UserError: the gradient was unusable for too many steps in a row.
    """
    if skipped_in_a_row < MAX_SKIPPED_IN_A_ROW:
        return
    raise UserError(
        f"The gradient was not finite, or above optim.skip_norm, for {skipped_in_a_row} steps up to step {step} "
        f"({first_bad_tensor(module)}). The last checkpoint predates this; try a lower optim.lr or more "
        "optim.warmup_steps."
    )
