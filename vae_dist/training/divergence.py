"""Steps that are skipped because their gradient can't be used: how many, why, and when that ends a run."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from vae_dist.data.parts import Part
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.errors import UserError
from vae_dist.losses import Beta, Loss
from vae_dist.training.gradients import GradientReducer

MAX_SKIPPED_IN_A_ROW = 50  # more than twice what fp16's loss scale takes to be found: 16 halvings from 65,536 to 1


class SkippedSteps:
    """The steps of a run that were skipped. Its counts are the same on all processes.

    Args:
        total: over the run so far.
        in_a_row: of these, up to the last step.
        skip_norm: the largest norm that a gradient may have.
        fp16: the run looks for a loss scale by trial and error.
    """

    def __init__(self, total: int, in_a_row: int, *, skip_norm: float | None, fp16: bool) -> None:
        self.total, self.in_a_row = total, in_a_row
        self._skip_norm, self._fp16 = skip_norm, fp16
        self._since = 0  # the first step skipped since the last report
        self._reasons: Counter[str] = Counter()  # of the steps skipped since the last report

    def add(self, step: int, sums: Mapping[str, float], norm: float, *, skipped: bool) -> None:
        """Take in a step: the sums of its loss and metrics, the norm of its gradient, and whether it was skipped."""
        self.total += skipped
        self.in_a_row = (self.in_a_row + 1) * skipped
        if skipped:
            if not self._reasons:
                self._since = step
            self._reasons[self._reason(sums, norm)] += 1

    def latest(self, step: int) -> str:
        """Say which steps in a row were skipped, up to the last one."""
        if self.in_a_row == 1:
            return f"The last step, {step:,}, was skipped"
        return f"The last {self.in_a_row} steps, up to step {step:,}, were skipped"

    def report(self, step: int) -> str | None:
        """Return what was skipped since the last report, or None if nothing was."""
        reasons, self._reasons = self._reasons, Counter()
        if not reasons:
            return None
        count = reasons.total()
        steps = "1 step was" if count == 1 else f"{count:,} steps were"
        return f"step {step:,}: {steps} skipped since step {self._since:,}: {'; '.join(reasons)}"

    def _reason(self, sums: Mapping[str, float], norm: float) -> str:
        if terms := _not_finite(sums):
            return f"the loss is not finite ({', '.join(terms)})"
        if math.isfinite(norm):
            return f"the gradient's norm is above optim.skip_norm {self._skip_norm:g}"
        if self._fp16:
            return "the gradient overflows at fp16's loss scale, which is halved"
        return "the gradient is not finite" if math.isnan(norm) else "the gradient's norm is infinite"


def diagnose(
    model: nn.Module,
    reducer: GradientReducer,
    skip_norm: float | None,
    micro_batches: Iterable[tuple[int, Part]],
    beta: Beta,
    process_group: ProcessGroup,
) -> str:
    """Return why the last step was skipped. It overwrites the gradient; all processes wait here for each other.

    Args:
        model: with the weights and the reduced gradient of that step.
        reducer: to run micro-batches once more with.
        skip_norm: the largest norm that the gradient may have.
        micro_batches: of this process in that step, by their numbers.
        beta: weight of the rate in that step.
        process_group: the processes; where several have found something, the lowest rank has the first micro-batch.
    """
    weights = first_bad({name: p.detach() for name, p in model.named_parameters()})
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    bad = first_bad(gradients)
    if weights is not None:
        found: str | None = f"the weights {weights} are not finite"
    elif bad is None:
        found = _cause_in_norm(gradients, skip_norm)
    else:
        found = next(_causes_in_micro_batches(model, reducer, micro_batches, beta), None)
        if found is not None and process_group.size > 1:
            found += f" on process {process_group.rank}"
    first = _first_report(found, process_group)
    return first or "the gradient is not finite, though it is in every micro-batch when it is computed once more"


def first_bad(tensors: Mapping[str, Tensor], limit: float = math.inf) -> str | None:
    """Name the first tensor that holds NaN, or a number of magnitude `limit` or more; None if none does."""
    if not tensors:
        return None
    good = torch.stack([(tensor.abs() < limit).all() for tensor in tensors.values()]).tolist()
    return next((name for name, is_good in zip(tensors, good, strict=True) if not is_good), None)


def diverged(what: str, cause: str, *, saved_step: int, skip_norm: float | None) -> UserError:
    """Return the error that ends a run.

    Args:
        what: happened.
        cause: why.
        saved_step: of the last checkpoint, all of which are from before; 0 without one.
        skip_norm: of the config.
    """
    kept = f"The last good checkpoint is of step {saved_step:,}" if saved_step else "There is no checkpoint from before"
    or_a_larger_limit = "" if skip_norm is None else " or a larger optim.skip_norm"
    return UserError(
        f"{what}: {cause}. {kept}. Try a lower optim.lr, more optim.warmup_steps{or_a_larger_limit} "
        "in a new run (--fresh)."
    )


def _cause_in_norm(gradients: Mapping[str, Tensor], skip_norm: float | None) -> str:
    """Return why a gradient was refused whose numbers are all finite."""
    norm = float(get_total_norm(list(gradients.values())))
    if math.isfinite(norm):
        return f"the gradient's norm {norm:.4g} is above optim.skip_norm {skip_norm:g}"
    largest = max(gradients, key=lambda name: float(gradients[name].abs().max()))
    return (
        f"every number in the gradient is finite, but their norm is beyond the range of float32 "
        f"(the largest number, {float(gradients[largest].abs().max()):.4g}, is in the gradient of {largest})"
    )


def _causes_in_micro_batches(
    model: nn.Module, reducer: GradientReducer, micro_batches: Iterable[tuple[int, Part]], beta: Beta
) -> Iterator[str]:
    """Run micro-batches one by one, and yield what is wrong with each that has something wrong."""
    for number, part in micro_batches:
        loss = reducer.backward_alone((*part, beta))
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        where = f"in micro-batch {number + 1}"
        if terms := _not_finite(_sums(loss)):
            values = ", ".join(f"{name} {value}" for name, value in terms.items())
            yield f"the loss is not finite ({values}) {where}"
        elif bad := first_bad(gradients):
            yield f"the gradient of {bad} is not finite {where}"
        elif bad := first_bad(gradients, reducer.limit):
            yield f"the gradient of {bad} is beyond ±{reducer.limit:,.0f}, which train.reduce exact can't add, {where}"


def _sums(loss: Loss) -> dict[str, float]:
    return {name: float(values.sum()) for name, values in {"loss": loss.loss.detach(), **loss.metrics}.items()}


def _not_finite(sums: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that make a loss not finite, or else the loss itself; nothing where the loss is finite."""
    if math.isfinite(sums["loss"]):
        return {}
    terms = {name: value for name, value in sums.items() if not math.isfinite(value)}
    return terms if len(terms) == 1 else {name: value for name, value in terms.items() if name != "loss"}


def _first_report(report: str | None, process_group: ProcessGroup) -> str | None:
    """Return the report of the lowest rank that has one."""
    has_one = torch.zeros(process_group.size)
    has_one[process_group.rank] = float(report is not None)
    process_group.all_reduce(has_one)
    if not has_one.any():
        return None
    text: str = process_group.broadcast_json(report, int(has_one.nonzero()[0]))
    return text
