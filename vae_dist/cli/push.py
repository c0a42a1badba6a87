"""`vae-dist push`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vae_dist.cli.errors import handle_errors, rank_zero_only
from vae_dist.cli.options import Best, Debug, open_checkpoint
from vae_dist.printable import printable

if TYPE_CHECKING:
    from vae_dist.runs.push import Upload


@handle_errors
@rank_zero_only
def push(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run or of a checkpoint.")],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hub.")],
    yes: Annotated[bool, typer.Option("--yes", help="Send it; without this nothing is sent or written.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository that others don't see.")] = False,
    best: Best = False,
    debug: Debug = False,
) -> None:
    """Push a model to the Hugging Face Hub with a model card, where load_model("hf://owner/name") finds it."""
    from vae_dist.inference.origin import Origin
    from vae_dist.runs.push import upload_of

    found = open_checkpoint(run, None, best=best)
    upload = upload_of(found, repository)
    if yes:
        print(printable(f"{upload.send(private=private)}: {Origin.of(found, 'push')}"))
        return
    place = f"hf://{repository}, which is made {'private' if private else 'public'} if there is none"
    print(printable(f"{Origin.of(found, 'push')}, to {place}:\n\n{_listing(upload)}\n\n{upload.card}"))
    print("Nothing was sent: the same command with --yes does that.")


def _listing(upload: "Upload") -> str:
    """Write the files with their sizes, and the paths of this machine that config.json would show to others."""
    lines = [f"{size / 2**20:>10,.3f} MiB  {name}" for name, size in upload.sizes().items()]
    lines += [f"config.json names {key}: {path}" for key, path in upload.local_paths.items()]
    return "\n".join(lines)
