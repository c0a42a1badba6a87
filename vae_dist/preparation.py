"""From a config and where a run goes on from, to everything that the loop needs, the same on all processes."""

import sys
from typing import NamedTuple

from rich.console import Console

from vae_dist.announcement import announce
from vae_dist.checkpoint import Checkpoint, Resolved, State
from vae_dist.config import Config
from vae_dist.data import Source, load_source
from vae_dist.errors import UsageError
from vae_dist.learner import Learner
from vae_dist.run_folder import RunFolder
from vae_dist.runtime import World, apply_resolved, make_accelerator, resolve
from vae_dist.tracking import Reporter, check_trackers


class Prepared(NamedTuple):
    """What a run is made of, at the point that it goes on from."""

    source: Source
    learner: Learner
    reporter: Reporter
    state: State


def prepare(
    folder: RunFolder,
    config: Config,
    world: World,
    console: Console | None,
    state: State | None,
    checkpoint: Checkpoint | None,
) -> Prepared:
    """Read the data, build or restore what learns, and announce it.

    Args:
        folder: of the run, claimed by the main process.
        config: of the run.
        world: the processes.
        console: where to tell of it; None to be silent.
        state: where the run goes on from, or None at its beginning; the same on all processes.
        checkpoint: what `state` was read from, on the main process.

    Raises:
        UsageError: the config doesn't fit the machine, or the data are not those that the run was begun with.
        UserError: data or checkpoint can't be read.
    """
    world.together(lambda: check_trackers(config.tracking.trackers))
    resolved = state.resolved if state else world.together(lambda: resolve(config.train, world.device))
    resolved = Resolved.model_validate(world.broadcast_json(resolved.model_dump()))
    world.together(lambda: apply_resolved(resolved, world.device))
    source, digests = _same_images(config, world, state)
    accelerator = make_accelerator(resolved.precision, folder.path, config.tracking.trackers)
    tensors = world.on_main(lambda: checkpoint.tensors() if checkpoint else None)
    learner = Learner(config, source, accelerator, world, state=state, tensors=tensors, compiled=resolved.compile)
    if state is not None:
        _check_compiled(resolved, learner)
    else:
        resolved = resolved.model_copy(update={"compile": learner.compiled})
        state = State(
            step=0,
            image_shape=source.image_shape,
            binarization=source.binarization,
            data=digests,
            resolved=resolved,
            evaluated=True,
        )
    keep = folder.add_metrics if world.is_main else None
    reporter = Reporter(console, keep, config, source.size("train"), state.step)
    facts = announce(config, source, world, resolved, learner.model)

    def record_start() -> None:
        identity = folder.record_start(sys.argv, facts["device"], world.processes, state.step)
        folder.set_status("running", state.step, config.train.steps)
        reporter.use_trackers(accelerator, identity)

    world.on_main(record_start)
    going_on = f", going on at step {state.step:,}" if state.step else ""
    reporter.start({"run": f"{folder.path}{going_on}", **facts})
    return Prepared(source, learner, reporter, state)


def _same_images(config: Config, world: World, state: State | None) -> tuple[Source, dict[str, str]]:
    """The images, on the device, and their digests: the same on all processes, and as the run was begun with."""
    source = world.together(lambda: load_source(config.data))
    digests = source.digests()
    known = state.data if state else world.broadcast_json(digests)
    whose = "the run was begun with" if state else "process 0 has"

    def compare() -> None:
        for split in digests.keys() & known.keys():
            if known[split] != digests[split]:
                raise UsageError(
                    f"The {split} images of {source.name} ({source.origin}) are not those that {whose}. "
                    "Point data.root or VAE_DIST_DATA to those, or give another --out."
                )

    world.together(compare)
    return source.to(world.device), digests


def _check_compiled(resolved: Resolved, learner: Learner) -> None:
    """See that a run that was begun compiled goes on so; all processes agree on whether it can."""
    if resolved.compile and not learner.compiled:
        raise UsageError(
            "The run was begun compiled, and torch.compile fails here: its weights would no longer be those of an "
            "undisturbed run. Repair the compiler, or give another --out."
        )
