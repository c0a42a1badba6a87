"""Train between two hosts, cut the link between them, and compare with a run that was left alone.

The hosts are two network namespaces of this machine, joined by a pair of virtual cables. It needs root, or a user
namespace in which it is root: `unshare --user --map-root-user --net scripts/two_hosts`. Linux only.

Checked are torchrun with the link cut for 5 seconds, torchrun with the link cut for longer than the run waits, and
`accelerate launch --num_machines 2`. All must end in the bits of a run on one process.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SETTINGS = (
    "train.steps=400",
    "train.reduce=exact",
    "train.checkpoint_every=50",
    "train.log_every=20",
    "train.eval_every=200",
    "train.precision=fp32",
    "train.batch_size=24",
    "train.micro_batches=6",
    "model.h_dim=64",
    "data.val_size=100",
)
ADDRESSES = ("10.213.0.1", "10.213.0.2")
PORT = 29_613
SHORT_CUT_S = 5.0
TIMEOUT_S = 15  # that a process waits for another, where the link stays cut
LONGEST_END_S = 30.0  # from the timeout to the message on both hosts
LOST_CONTACT = "The contact to another process was lost. The same command goes on from the last checkpoint."
LONGEST_RUN_S = 600.0


class BrokenPromiseError(Exception):
    """Something went on otherwise than is promised."""


class Hosts:
    """Two network namespaces with a cable between them."""

    def __init__(self) -> None:
        self.names = [f"vae-dist-{os.getpid()}-{host}" for host in "ab"]
        self._cables = [f"vd{os.getpid() % 10**6}{host}" for host in "ab"]

    def set_up(self) -> None:
        """Make them."""
        for name in self.names:
            _ip("netns", "add", name)
        _ip("link", "add", self._cables[0], "type", "veth", "peer", "name", self._cables[1])
        for name, cable, address in zip(self.names, self._cables, ADDRESSES, strict=True):
            _ip("link", "set", cable, "netns", name)
            _ip("-n", name, "address", "add", f"{address}/24", "dev", cable)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", cable, "up")

    def link(self, state: str) -> None:
        """Cut the link ("down"), or join it again ("up")."""
        _ip("-n", self.names[0], "link", "set", self._cables[0], state)

    def start(self, host: int, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a command on a host, which has the name of the cable in GLOO_SOCKET_IFNAME."""
        environment = os.environ | {"GLOO_SOCKET_IFNAME": self._cables[host], "OMP_NUM_THREADS": "1"}
        inside = ["ip", "netns", "exec", self.names[host], *command]
        with log.open("ab") as file:
            return subprocess.Popen(inside, env=environment, stdout=file, stderr=file, start_new_session=True)

    def remove(self) -> None:
        """Remove them, and the cable with them."""
        for name in self.names:
            subprocess.run(["ip", "netns", "delete", name], check=False, stderr=subprocess.DEVNULL)


def main() -> None:
    """Parse the command line, check every case, and print the verdicts."""
    parser = argparse.ArgumentParser(prog="scripts/two_hosts", description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", choices=[*CASES], help="one case instead of all")
    options = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("ip") is None:
        sys.exit("scripts/two_hosts makes network namespaces: it needs root, and the program ip (iproute2).")
    folder, hosts = Path(tempfile.mkdtemp(prefix="vae-dist-two-hosts-")), Hosts()
    try:
        hosts.set_up()
        alone = [sys.executable, *training(folder / "alone")]
        subprocess.run(alone, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
        for name in [options.only] if options.only else CASES:
            began = time.monotonic()
            told = CASES[name](hosts, folder)
            print(f"{name}: {told} ({time.monotonic() - began:.0f} s)", flush=True)
    except subprocess.CalledProcessError as error:
        sys.exit(f"FAILED: {' '.join(map(str, error.cmd))} ended with exit code {error.returncode}.")
    except BrokenPromiseError as error:
        sys.exit(f"FAILED: {error}\nThe runs are in {folder}.")
    finally:
        hosts.remove()
    shutil.rmtree(folder)
    print("PASSED")


def short_cut(hosts: Hosts, folder: Path) -> str:
    """Cut the link for a moment: the run goes on."""
    run = folder / "short"
    with launched(hosts, run, torchrun) as launchers:
        _wait_for_checkpoint(run, launchers)
        hosts.link("down")
        time.sleep(SHORT_CUT_S)
        hosts.link("up")
        _expect(launchers, [0, 0], LONGEST_RUN_S, run)
    return f"after {SHORT_CUT_S:g} s without a link the run went on, {_compare(run, folder)}"


def long_cut(hosts: Hosts, folder: Path) -> str:
    """Cut the link for longer than processes wait: both ends say so and end, and the same commands go on.

    torchrun on the host without the meeting place goes on looking for it for minutes, so the launchers are ended here.
    """
    run = folder / "long"
    with launched(hosts, run, torchrun) as launchers:
        _wait_for_checkpoint(run, launchers)
        began = time.monotonic()
        hosts.link("down")
        while not all(LOST_CONTACT in log for log in _logs(run)):
            if time.monotonic() - began > TIMEOUT_S + LONGEST_END_S:
                raise BrokenPromiseError("a host didn't say what was the matter:\n" + "\n".join(_logs(run))[-6000:])
            time.sleep(0.1)
        told_s = time.monotonic() - began
    hosts.link("up")
    if any("vae_dist/training/" in log for log in _logs(run)):
        raise BrokenPromiseError("there was a traceback:\n" + "\n".join(_logs(run))[-6000:])
    step = json.loads((run / "status.json").read_bytes())["step"]
    with launched(hosts, run, torchrun) as launchers:
        _expect(launchers, [0, 0], LONGEST_RUN_S, run)
    return (
        f"with collective_timeout_s={TIMEOUT_S} the processes of both hosts had ended with the message {told_s:.0f} s "
        f"after the cut; the same commands went on from step {step}, {_compare(run, folder)}"
    )


def accelerated(hosts: Hosts, folder: Path) -> str:
    """Start the run by accelerate."""
    run = folder / "accelerate"
    with launched(hosts, run, accelerate) as launchers:
        _expect(launchers, [0, 0], LONGEST_RUN_S, run)
    return f"accelerate launch --num_machines 2 trained, {_compare(run, folder)}"


CASES: dict[str, Callable[[Hosts, Path], str]] = {
    "short cut": short_cut,
    "long cut": long_cut,
    "accelerate": accelerated,
}


def training(run: Path) -> list[str]:
    """Return `-m vae_dist train …` as an interpreter or a launcher takes it."""
    settings = [*SETTINGS, f"train.collective_timeout_s={TIMEOUT_S}"]
    return ["-m", "vae_dist", "train", *(part for s in settings for part in ("--set", s)), "--out", str(run)]


def torchrun(host: int, run: Path) -> list[str]:
    """Return torchrun's command on a host, as docs/distributed.md has it."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"{ADDRESSES[0]}:{PORT}", "--rdzv-id", "two-hosts"),
        *("--rdzv-conf", f"is_host={int(host == 0)}", "--local-addr", ADDRESSES[host]),
        *training(run),
    ]


def accelerate(host: int, run: Path) -> list[str]:
    """Return accelerate's command on a host."""
    return [
        *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "2"),
        *("--num_processes", "2", "--machine_rank", str(host)),
        *("--main_process_ip", ADDRESSES[0], "--main_process_port", str(PORT + 1)),
        *training(run),
    ]


@contextmanager
def launched(
    hosts: Hosts, run: Path, command: Callable[[int, Path], list[str]]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start a run on both hosts, and end what is left of it."""
    launchers = [
        hosts.start(host, command(host, run), run.with_suffix(f".host-{host}.log")) for host in range(len(ADDRESSES))
    ]
    try:
        yield launchers
    finally:
        for launcher in launchers:
            launcher.kill()
            launcher.wait()


def _wait_for_checkpoint(run: Path, launchers: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + LONGEST_RUN_S
    while not list((run / "checkpoints").glob("step-????????")):
        if time.monotonic() > deadline or any(launcher.poll() is not None for launcher in launchers):
            raise BrokenPromiseError(f"the run didn't get to its first checkpoint:\n{_logs(run)[0][-3000:]}")
        time.sleep(0.05)


def _expect(launchers: list[subprocess.Popen[bytes]], codes: list[int], within_s: float, run: Path) -> None:
    deadline = time.monotonic() + within_s
    try:
        found = [launcher.wait(max(0.1, deadline - time.monotonic())) for launcher in launchers]
    except subprocess.TimeoutExpired as late:
        raise BrokenPromiseError(f"after {within_s:.0f} s {run.name} has not ended on both hosts") from late
    if found != codes:
        logs = "\n".join(log[-3000:] for log in _logs(run))
        raise BrokenPromiseError(f"{run.name} ended with exit codes {found} instead of {codes}:\n{logs}")


def _compare(run: Path, folder: Path) -> str:
    """Check that a run ended in the bits of the one on one process."""
    last = f"step-{json.loads((run / 'status.json').read_bytes())['step']:08d}"
    files = ["metrics.jsonl", *(f"checkpoints/{last}/{name}.safetensors" for name in ("model", "ema", "optimizer"))]
    different = [name for name in files if (run / name).read_bytes() != (folder / "alone" / name).read_bytes()]
    if different:
        raise BrokenPromiseError(f"{run.name} differs from a run on one process in {', '.join(different)}")
    return "with the bits of a run on one process"


def _logs(run: Path) -> list[str]:
    return [run.with_suffix(f".host-{host}.log").read_text() for host in range(len(ADDRESSES))]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


if __name__ == "__main__":
    main()
