"""The program as its users meet it: help at once, pictures where promised, one clear sentence about a mistake."""

import json
import os
import subprocess
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import QUICK, Command, run
from vae_dist import __version__
from vae_dist.config import find_config, load_config, shipped_configs

COMMANDS = ["init", "train", "sample", "reconstruct", "interpolate", "evaluate", "encode", "decode", "export", "info"]
COMMANDS += [
    "configs",
    "configs show",
    "data inspect",
    "data pack",
    "runs",
    "compare",
    "traverse",
    "map",
    "score",
    "report",
    "push",
]
HEAVY = ["torch", "torchvision", "accelerate", "pydantic", "numpy", "PIL", "safetensors"]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command: str) -> None:
    option = "-h" if len(command) % 2 else "--help"
    program = (
        "import os, sys\n"
        "os._exit = sys.exit\n"
        f"sys.argv = ['vae-dist', *{command.split()!r}, '{option}']\n"
        "from vae_dist.cli import main\n"
        "try:\n    main()\n"
        f"except SystemExit as end:\n    assert end.code == 0\nprint([name for name in {HEAVY} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Usage: vae-dist" in result.stdout
    assert result.stdout.splitlines()[-1] == "[]"


def test_the_version_option_prints_the_installed_version(vae_dist_started: Command) -> None:
    assert vae_dist_started("--version").stdout == f"{version('vae-dist')}\n"
    assert __version__ == version("vae-dist")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["--version", "--help", "train --print-config", "configs"])
def test_output_that_is_lost_on_a_full_disk_is_a_failure(command: str, unbuffered: str) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "vae_dist", *command.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr == "Error: The system says: No space left on device.\n"


def test_importing_the_package_imports_no_torch() -> None:
    program = "import sys, vae_dist; assert 'torch' not in sys.modules; vae_dist.VariationalAutoEncoder(4)"
    subprocess.run([sys.executable, "-c", program], check=True)


def copy_of(trained: Path, folder: Path) -> str:
    return os.path.relpath(trained / "runs" / "quickstart", folder)


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def test_sample_is_reproducible_and_grows_by_appending(
    vae_dist: Command, vae_dist_started: Command, trained: Path, tmp_path: Path
) -> None:
    model = copy_of(trained, tmp_path)
    first = vae_dist_started("sample", "--checkpoint", model)
    written = f"images/samples.png: {model}, step 300, averaged (EMA) weights, seed 0\n"
    assert (first.returncode, first.stdout) == (0, written)
    assert size_of(tmp_path / "images" / "samples.png") == (8 * 58 + 2, 8 * 58 + 2)
    again = vae_dist("sample", "--checkpoint", model, "--out", "again.png", "--n", "64", "--show")
    assert again.returncode == 0
    assert again.stderr == "--show needs a terminal with colours: the pictures are in again.png.\n"
    assert "\x1b" not in again.stdout
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "images" / "samples.png").read_bytes()
    with Image.open(trained / "runs/quickstart/images/samples.png") as own, Image.open(tmp_path / "again.png") as drawn:
        assert own.tobytes() == drawn.tobytes()
        facts = {"Software": f"vae-dist {__version__}", "step": "300", "weights": "averaged (EMA)", "seed": "0"}
        assert own.info == {**facts, "command": "vae-dist train", "run": "runs/quickstart"}
        assert drawn.info == {**facts, "command": "vae-dist sample", "run": model}


def test_reconstruct_takes_any_pictures(
    vae_dist: Command, vae_dist_started: Command, trained: Path, tmp_path: Path
) -> None:
    Image.new("RGBA", (90, 40), (255, 0, 0, 128)).save(tmp_path / "a.png")
    Image.new("L", (28, 28), 200).save(tmp_path / "b.jpg")
    model = copy_of(trained, tmp_path)
    two = vae_dist_started("reconstruct", "--input", "a.png", "--input", "b.jpg", "--checkpoint", model)
    assert (two.returncode, two.stdout) == (
        0,
        f"images/reconstructions.png: {model}, step 300, averaged (EMA) weights\n",
    )
    for inputs, word in ((["a.png", "b.jpg"], ""), (["."], " (replaced)")):
        again = vae_dist("reconstruct", model, "--input", *inputs, "--out", "out/again.png")
        assert again.returncode == 0, again.stderr
        assert again.stdout.startswith(f"out/again.png{word}: ")
        assert size_of(tmp_path / "out" / "again.png") == size_of(tmp_path / "images" / "reconstructions.png")
    assert vae_dist("reconstruct", "--checkpoint", model, "--out", "val.png").returncode == 0
    assert size_of(tmp_path / "val.png")[0] == 8 * 58 + 2


def test_interpolate_writes_a_strip_or_an_animation(
    vae_dist: Command, vae_dist_started: Command, trained: Path, tmp_path: Path
) -> None:
    model = copy_of(trained, tmp_path)
    assert vae_dist("interpolate", "--checkpoint", model, "--steps", "5").returncode == 0
    assert size_of(tmp_path / "images" / "interpolation.png") == (5 * 58 + 2, 60)
    Image.new("L", (28, 28), 200).save(tmp_path / "b.png")
    ends = ("--start", "b.png", "--end", "b.png", "--method", "linear", "--out", "walk.gif")
    assert vae_dist_started("interpolate", "--checkpoint", model, *ends).returncode == 0
    with Image.open(tmp_path / "walk.gif") as walk:
        assert walk.format == "GIF"


def test_evaluate_labels_its_figures(vae_dist: Command, vae_dist_started: Command, trained: Path) -> None:
    table = vae_dist("evaluate", "--k", "2", cwd=trained)
    assert table.returncode == 0, table.stderr
    for part in (
        "val split, 1,000 images",
        "−ELBO",
        "NLL, k=2",
        "nats an image",
        "bits/dim",
        "dynamic binarization",
    ):
        assert part in table.stdout
    record = json.loads(vae_dist_started("evaluate", "--k", "2", "--json", "--split", "val", cwd=trained).stdout)
    assert {"k", "split", "seed", "checkpoint", "binarization", "nll", "nll_se", "neg_elbo"} <= record.keys()
    assert record["nll"] <= record["neg_elbo"]


def test_evaluate_says_before_it_opens_the_test_split(vae_dist: Command, trained: Path, tmp_path: Path) -> None:
    """The images that a run was trained on stand for another set that has a test split, too."""
    for split in ("train", "val", "test"):
        (tmp_path / "pictures" / split).mkdir(parents=True)
        for number in range(8):
            Image.new("L", (8, 8), 30 * number).save(tmp_path / "pictures" / split / f"{number}.png")
    overrides = (
        *QUICK,
        "--set",
        "data={name: folder, root: pictures}",
        "--set",
        "train.steps=2",
        "--set",
        "train.batch_size=6",
    )
    assert vae_dist("train", *overrides, "--out", "run").returncode == 0
    chosen = vae_dist("evaluate", "run", "--k", "2", "--json")
    assert "this opens the test split" in chosen.stderr
    assert json.loads(chosen.stdout)["split"] == "test"
    assert "opens" not in vae_dist("evaluate", "run", "--k", "2", "--split", "test").stderr


def test_a_config_that_is_printed_is_a_config(vae_dist: Command, tmp_path: Path) -> None:
    printed = vae_dist("train", "mnist-1min", "--print-config", "--set", "optim.lr=1e-3", "--precision", "bf16")
    (tmp_path / "mine.yaml").write_text(printed.stdout)
    assert load_config(tmp_path / "mine.yaml") == load_config(
        find_config("mnist-1min"), ["optim.lr=1e-3", "train.precision=bf16"]
    )
    assert vae_dist("train", "mine.yaml", "--print-config").stdout == printed.stdout
    assert not (tmp_path / "runs").exists()


def test_the_shipped_configs_are_listed_and_shown(vae_dist: Command) -> None:
    lines = vae_dist("configs").stdout.splitlines()
    assert sorted(line.split()[0] for line in lines if line.startswith("  ")) == sorted(shipped_configs())
    assert vae_dist("configs", "show", "mnist-mlp").stdout == shipped_configs()["mnist-mlp"].read_text()


def test_a_shell_completes_commands_and_configs(vae_dist: Command) -> None:
    complete = partial(vae_dist, _VAE_DIST_COMPLETE="complete_bash")
    assert complete(COMP_WORDS="vae-dist sa", COMP_CWORD="1").stdout.split() == ["sample"]
    assert complete(COMP_WORDS="vae-dist train quick", COMP_CWORD="2").stdout.split() == ["quickstart"]


def test_info_describes_machine_and_run(vae_dist: Command, vae_dist_started: Command, trained: Path) -> None:
    description = vae_dist_started("info", cwd=trained).stdout
    assert "torch" in description
    assert "step-00000300" in description
    assert "There is no trained model" in vae_dist("info").stdout


MISTAKES = {
    "no images": (["sample", "--n", "0"], 2, "--n is 0; it should be a whole number from 1 to 10,000."),
    "no run": (["sample"], 1, "train one with `vae-dist train`"),
    "no checkpoint": (["sample", "--checkpoint", "absent"], 1, "There is no absent"),
    "temperature": (["sample", "--temperature", "nan"], 2, "nan is no number"),
    "empty folder": (["sample", "--checkpoint", "empty"], 1, "empty holds no intact checkpoint"),
    "no such config": (["train", "absent.yaml"], 2, "There is no config 'absent.yaml'"),
    "wrong key": (["train", "--set", "model.z=3"], 2, "unknown key model.z; did you mean model.z_dim?"),
    "out of range": (["train", "--set", "optim.lr=-1"], 2, "optim.lr is -1"),
    "fp16 on a CPU": (["train", "--precision", "fp16"], 2, "fp16 doesn't exist on cpu"),
    "no data": (["train", "--set", "data.name=binarized-mnist", "--set", "data.binarize=static"], 1, "was not found"),
    "no tracker": (["train", "--set", "tracking.trackers=[wandb]"], 2, "pip install 'vae-dist[wandb]'"),
    "a folder that is no run": (["train", "--out", "full"], 2, "full is no run and not empty"),
    "a file for a folder": (["train", "--out", "file.txt"], 1, "file.txt"),
    "other names": (["train", "minst"], 2, "did you mean mnist-10min, "),
    "an option that is a key": (["train", "--steps", "100"], 2, "did you mean --set train.steps=100?"),
    "another tool's option": (["train", "--optimizer=adam"], 2, "did you mean --set optim=adamw?"),
    "epochs": (["train", "--epochs", "10"], 2, "did you mean --set train.steps=STEPS? (an epoch is as many steps as"),
    "resume": (["train", "--resume"], 2, "resuming is automatic"),
    "another name of an option": (["sample", "--num-samples", "3"], 2, "did you mean --n?"),
    "a value apart": (["train", "--set", "seed", "3"], 2, "--set seed: write it as section.key=value."),
    "a similar run": (["sample", "secnod"], 1, "There is no secnod; did you mean runs/second?"),
    "a choice": (
        ["evaluate", "--split", "tset"],
        2,
        "--split is tset; it should be test, val or train: did you mean test?",
    ),
    "a precision": (["train", "--precision", "bfloat16"], 2, "did you mean bf16?"),
    "a command": (["generate"], 2, "did you mean sample?"),
    "a run given twice": (["sample", "a", "--checkpoint", "b"], 2, "give one of them"),
    "the best of no run": (["sample", "full", "--best"], 1, "There is no run full"),
    "pictures of an absurd size": (
        ["train", "folder", "--set", "data.root=pictures", "--set", "data.size=65000"],
        1,
        "500 megapixels are the most",
    ),
    "one end of two": (["interpolate", "--start", "x.png"], 2, "Give both --start and --end"),
}


STARTED = ("no run", "wrong key")  # a mistake of each exit code, in a process that is started for it


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_sentence(
    vae_dist: Command, vae_dist_started: Command, tmp_path: Path, mistake: str
) -> None:
    call = vae_dist_started if mistake in STARTED else vae_dist
    arguments, code, complaint = MISTAKES[mistake]
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    (tmp_path / "file.txt").touch()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "runs" / "second" / "checkpoints").mkdir(parents=True)
    for name in ("a.png", "b.png", "c.png"):
        Image.new("L", (8, 8)).save(tmp_path / "pictures" / name)
    result = call(*arguments)
    assert result.returncode == code, result.stderr
    assert complaint in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_mistakes_with_pictures(vae_dist: Command, trained: Path, tmp_path: Path) -> None:
    model = copy_of(trained, tmp_path)
    (tmp_path / "notes.png").write_text("words")
    (tmp_path / "folder.png").mkdir()
    for arguments, complaint in [
        (["reconstruct", "--input", "notes.png"], "notes.png is no image"),
        (["reconstruct", "--input", "absent.png"], "There is no image absent.png"),
        (["sample", "--out", "folder.png"], "folder.png is a folder"),
        (["sample", "--out", "/proc/nowhere/x.png"], "can't be written"),
        (["evaluate", "--split", "test"], "digits has no test split here; it has train, val"),
    ]:
        result = vae_dist(*arguments, "--checkpoint", model)
        assert result.returncode in (1, 2)
        assert complaint in result.stderr
        assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback(vae_dist: Command) -> None:
    assert "Traceback" in vae_dist("sample", "--debug").stderr


def test_a_full_disk_ends_a_run_with_a_message_and_loses_nothing(vae_dist: Command, tmp_path: Path) -> None:
    """A limit on file sizes stands for the disk: the weights of the larger model don't fit."""
    assert vae_dist("train", *QUICK, "--out", "run").returncode == 0
    before = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    program = f"ulimit -f 60; exec {sys.executable} -m vae_dist train {' '.join(QUICK)} --out run --set train.steps=8"
    result = run("bash", "-c", program, cwd=tmp_path)
    assert result.returncode == 1, result.stderr
    assert "run can't be written: File too large. Existing checkpoints are untouched." in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == before


def test_the_classic_commands_work(tmp_path: Path, trained: Path) -> None:
    scripts = Path(sys.executable).parent
    assert subprocess.run([scripts / "train", "--help"], check=True, capture_output=True).stdout
    subprocess.run([scripts / "inference"], cwd=trained, check=True)
    assert (trained / "images" / "samples.png").exists()
    assert (trained / "images" / "reconstructions.png").exists()


def test_the_tutorials_demonstration_prints_what_it_always_did() -> None:
    script = Path(__file__).parent.parent / "scripts" / "vae.py"
    shown = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True).stdout
    assert shown == (
        "Reconstructed Shape: torch.Size([4, 784])\n"
        "Latent Mean Shape: torch.Size([4, 20])\n"
        "Latent Sigma Shape: torch.Size([4, 20])\n"
    )
