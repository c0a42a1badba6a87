"""A checkpoint on the Hugging Face Hub with a model card: what `load_model("hf://owner/name")` opens.

A repository holds the checkpoint's folder with its weights alone, without the optimizer's moments; the scale of the
latents where it is known; and of an `autoencoder-kl` the folder that diffusers opens, too.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vae_dist.checkpoint import Checkpoint
from vae_dist.checkpoint.diffusers_folder import diffusers_files
from vae_dist.checkpoint.format import CONFIG, MANIFEST, STATE, FileEntry, Manifest, file_name
from vae_dist.checkpoint.hub import REPOSITORY
from vae_dist.checkpoint.latents import LATENTS, latent_statistics
from vae_dist.checkpoint.model import AVERAGED, MODEL, model_of
from vae_dist.checkpoint.tensor_file import sha256
from vae_dist.config import AutoencoderKLConfig, flatten
from vae_dist.errors import UsageError, UserError
from vae_dist.models import AutoencoderKL
from vae_dist.printable import one_line
from vae_dist.runs.model_card import CARD, hub_card

FOR_DIFFUSERS = "vae"  # the folder of an autoencoder in diffusers' pipelines


@dataclass(frozen=True)
class Upload:
    """The files that go to a repository.

    Attributes:
        repository: owner/name.
        title: of the commit.
        card: of the model.
        files: by name in the repository; the path of a file that is there, or its content.
        local_paths: keys of the config with paths of this machine, which config.json names.
    """

    repository: str
    title: str
    card: str
    files: Mapping[str, Path | bytes]
    local_paths: Mapping[str, str]

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each file."""
        return {n: len(f) if isinstance(f, bytes) else f.stat().st_size for n, f in self.files.items()}

    def send(self, *, private: bool) -> str:
        """Make the repository if there is none, send everything in one commit, and return its address.

        Raises:
            UserError: there is no token, it doesn't allow that, or there is no network.
        """
        from huggingface_hub import CommitOperationAdd, HfApi, get_token

        if get_token() is None:
            raise UserError("There is no token of the Hugging Face Hub: `hf auth login` once, or set HF_TOKEN.")
        operations = [CommitOperationAdd(name, file) for name, file in self.files.items()]
        api = HfApi(library_name="vae-dist")

        def commit() -> str:
            api.create_repo(self.repository, private=private, exist_ok=True)
            return str(api.create_commit(self.repository, operations, commit_message=self.title).commit_url)

        return _with_hub_errors(commit, self.repository)


def upload_of(checkpoint: Checkpoint, repository: str) -> Upload:
    """Return what a push of a checkpoint sends. Nothing is written or sent.

    Raises:
        UsageError: the name is none of a repository.
        UserError: the checkpoint can't be read.
    """
    if not re.fullmatch(REPOSITORY, repository, re.ASCII):
        raise UsageError(f"{one_line(repository, 200)} is no name of a repository on the Hub: write owner/name.")
    config, statistics = checkpoint.config, latent_statistics(checkpoint)
    files: dict[str, Path | bytes] = dict(_weights_only(checkpoint))
    if statistics is not None:
        files[LATENTS] = statistics.model_dump_json(indent=1).encode()
    if isinstance(config.model, AutoencoderKLConfig):
        model = model_of(checkpoint)
        assert isinstance(model, AutoencoderKL)  # noqa: S101 - of its config
        for_diffusers = diffusers_files(model, config.model, statistics)
        files |= {f"{FOR_DIFFUSERS}/{name}": content for name, content in for_diffusers.items()}
    card = hub_card(checkpoint, statistics, repository, FOR_DIFFUSERS)
    files = {CARD: card.encode(), **files}
    local_paths = {key: str(value) for key, value in flatten(config).items() if isinstance(value, Path)}
    return Upload(repository, f"Step {checkpoint.state.step:,}, by vae-dist", card, files, local_paths)


def _weights_only(checkpoint: Checkpoint) -> dict[str, Path | bytes]:
    """Return the files of the same checkpoint without the tensors that only training needs."""
    groups = tuple(group for group in checkpoint.state.groups if group in (MODEL, AVERAGED))
    state = checkpoint.state.model_copy(update={"groups": groups}).model_dump_json(indent=1).encode()
    tensors = [checkpoint.path / file_name(group) for group in groups]
    files: dict[str, Path | bytes] = {file.name: file for file in (checkpoint.path / CONFIG, *tensors)}
    files[STATE] = state
    manifest = Manifest(files={name: _entry(file) for name, file in files.items()})
    return files | {MANIFEST: manifest.model_dump_json(indent=1).encode()}


def _entry(file: Path | bytes) -> FileEntry:
    if isinstance(file, bytes):
        return FileEntry(sha256=hashlib.sha256(file).hexdigest(), size=len(file))
    return FileEntry(sha256=sha256(file), size=file.stat().st_size)


def _with_hub_errors(call: Callable[[], str], repository: str) -> str:
    """Turn a refusal of the Hub, or a network that isn't there, into one sentence."""
    from huggingface_hub import errors

    try:
        return call()
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status == 401:
            raise UserError("The Hub refuses the token: `hf auth login` again, or set another HF_TOKEN.") from error
        if status == 403:
            raise UserError(f"The token may not write to {repository}: give one with the right to.") from error
        reason = error.server_message or str(error).partition("\n")[0]
        raise UserError(f"The Hub refuses the push to {repository}: {one_line(reason, 300)}.") from error
    except Exception as error:  # of the network and of the disk
        raise UserError(
            f"{repository} can't be pushed to ({type(error).__name__}: {one_line(str(error), 200)})."
        ) from error
