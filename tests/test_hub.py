"""The Hugging Face Hub: what a push sends and what hf://owner/name opens. Only the Hub itself is stood in for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError

from tests.conftest import Command
from tests.test_initial_weights import begin
from vae_dist.checkpoint import find_checkpoint, load_model
from vae_dist.checkpoint.diffusers_folder import DiffusersFolder
from vae_dist.errors import UsageError, UserError
from vae_dist.runs.push import Upload, upload_of

COMMIT = 40 * "a"
NAME = "me/tiny"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of an autoencoder; don't write in it."""
    return begin(tmp_path_factory.mktemp("hub") / "run", steps=2)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The main branch of the repository `NAME` in the Hub's cache, empty, on a machine without a network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--me--tiny"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "snapshots" / COMMIT).mkdir(parents=True)
    return folder / "snapshots" / COMMIT


@pytest.fixture
def hub(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hub that takes a commit and has it in the cache at once."""

    def commit(api: HfApi, name: str, operations: list[CommitOperationAdd], *, commit_message: str) -> Any:
        assert (name, commit_message) == (NAME, "Step 2, by vae-dist")
        for operation in operations:
            file = repository / operation.path_in_repo
            file.parent.mkdir(exist_ok=True)
            with operation.as_file() as content:
                file.write_bytes(content.read())
        return SimpleNamespace(commit_url=f"https://hub/{NAME}/commit/{COMMIT}")

    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    monkeypatch.setattr(HfApi, "create_repo", lambda *_, **__: None)
    monkeypatch.setattr(HfApi, "create_commit", commit)
    return repository


def upload(run: Path) -> Upload:
    return upload_of(find_checkpoint(run), NAME)


def test_a_pushed_run_opens_by_its_address_without_a_network(run: Path, hub: Path) -> None:
    assert upload(run).send(private=True).startswith("https://hub/me/tiny/commit/")
    here = load_model(run).state_dict()
    for address in (f"hf://{NAME}", f"hf://{NAME}@main", f"hf://{NAME}@{COMMIT}"):
        there = load_model(address).state_dict()
        assert all(torch.equal(there[name], here[name]) for name in here)
    assert not list(hub.glob("optimizer*"))
    assert f'load_model("hf://{NAME}")' in (hub / "README.md").read_text()
    for_diffusers = DiffusersFolder.open(hub / "vae").read()
    assert all(torch.equal(tensor, here[name]) for name, tensor in for_diffusers.items())


def test_without_yes_the_files_and_the_card_are_shown_and_nothing_is_sent(
    run: Path, vae_dist: Command, tmp_path: Path
) -> None:
    shown = vae_dist("push", str(run), NAME)
    assert shown.returncode == 0, shown.stderr
    listed = {line.split()[-1] for line in shown.stdout.splitlines() if " MiB  " in line}
    assert listed == set(upload(run).files)
    assert upload(run).card in shown.stdout
    assert shown.stdout.endswith("Nothing was sent: the same command with --yes does that.\n")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "The Hub refuses the token"), (403, "may not write to me/tiny"), (500, "refuses the push .*: out of order")],
)
def test_a_push_that_the_hub_refuses_is_one_sentence(
    run: Path, hub: Path, monkeypatch: pytest.MonkeyPatch, status: int, message: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
        raise HfHubHTTPError("out of order", response=response)

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    with pytest.raises(UserError, match=message):
        upload(run).send(private=False)


def test_a_push_without_a_token_or_a_network_is_one_sentence(
    run: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_of_nobody")
    with pytest.raises(UserError, match=r"me/tiny can't be pushed to \(OfflineModeIsEnabled"):
        upload(run).send(private=False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="There is no token"):
        upload(run).send(private=False)
    with pytest.raises(UsageError, match="tiny is no name of a repository on the Hub: write owner/name"):
        upload_of(find_checkpoint(run), "tiny")


def test_a_repository_that_holds_only_pickles_is_refused(repository: Path) -> None:
    (repository / "pytorch_model.bin").write_bytes(b"\x80")
    (repository / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"hf://me/tiny holds no checkpoint of vae-dist.* Pickles .* are never read"):
        load_model(f"hf://{NAME}")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://me/other", r"hf://me/other isn't in the cache .* can't be reached \(OfflineModeIsEnabled\)"),
        ("hf://me/tiny@v2", "hf://me/tiny@v2 isn't in the cache"),
        ("hf://tiny", "hf://tiny is no address of a repository: write hf://owner/name"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_in_one_sentence(repository: Path, address: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_model(address)
