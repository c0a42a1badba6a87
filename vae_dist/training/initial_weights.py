"""The weights that `train --init` gives a new run, and the record of them."""

from pathlib import Path
from typing import Any

from vae_dist.checkpoint.initial import InitialWeights
from vae_dist.config import Config
from vae_dist.errors import UsageError
from vae_dist.training.train_state import TrainState

SHOWN = 12  # digits of a digest


def begin_with(path: Path | None, train_state: TrainState, config: Config) -> dict[str, Any] | None:
    """Give a train state the weights that a path means, on rank zero, and return the record of them for run.json.

    Raises:
        UsageError: the weights are of another model, or a part is frozen that nothing is given for.
        UserError: they can't be read.
    """
    if path is None:
        if frozen := getattr(config.model, "freeze", None):
            raise UsageError(
                f"model.freeze {frozen} leaves the {frozen} as it begins, which is at random: "
                "give its weights, train --init PATH."
            )
        return None
    weights = InitialWeights.open(path)
    names = weights.names_for(train_state.model, config.model)
    tensors = weights.read()
    taken = {name: tensors[name] for name in names}
    train_state.begin_with(taken)
    return {
        "path": str(path),
        "file": str(weights.file),
        "sha256": weights.digest,
        "source": weights.source,
        "tensors": len(taken),
        "numbers": sum(tensor.numel() for tensor in taken.values()),
        "not_taken": sorted(tensors.keys() - taken.keys()),
        "begun_anew": sorted(train_state.model.state_dict().keys() - taken.keys()),
    }


def in_words(record: dict[str, Any]) -> str:
    """Describe what was taken in one line of a run's summary."""
    text = f"{record['tensors']:,} tensors, {record['numbers']:,} numbers, of {record['path']} ({record['source']}, "
    text += f"sha256 {record['sha256'][:SHOWN]}…)"
    for key, words in (("not_taken", "not taken"), ("begun_anew", "begun anew")):
        if record[key]:
            text += f"; {words}: {', '.join(record[key])}"
    return text
