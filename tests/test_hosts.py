"""What is there for several hosts, as far as it can be checked on one: launchers' parsers, stand-ins, and a schema.

`scripts/two_hosts` trains between two network namespaces; it needs root and is not part of the suite.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import soak
import two_hosts
import yaml
from accelerate.commands.launch import launch_command_parser
from torch.distributed.elastic.rendezvous.utils import _parse_rendezvous_config
from torch.distributed.run import get_args_parser

from tests.test_docs import check_program
from vae_dist.distributed.launcher_env import NUMBERS

SCRIPTS = Path(__file__).parent.parent / "scripts"


def test_the_commands_of_two_hosts_are_parsed_by_the_launchers(tmp_path: Path) -> None:
    for host in (0, 1):
        options = get_args_parser().parse_args(two_hosts.torchrun(host, tmp_path)[3:])
        assert _parse_rendezvous_config(options.rdzv_conf) == {"is_host": str(int(host == 0))}
        check_program(options.training_script_args)
        options = launch_command_parser().parse_args(two_hosts.accelerate(host, tmp_path)[3:])
        assert (options.num_machines, options.machine_rank, options.num_processes) == (2, host, 2)
        check_program(options.training_script_args)


STAND_INS = {
    "scontrol": 'echo "$@" >> scontrol.log; [ "$1" = show ] && printf "node1\\nnode2\\n"; true',
    "scancel": 'echo "$@" >> scancel.log; kill -TERM "$(cat torchrun.pid)"',
    "srun": 'export SLURM_NODEID=1 SLURMD_NODENAME=node2 SLURM_GPUS_ON_NODE=4; shift; exec "$@"',
    "torchrun": """printf "%s\\n" "$@" > torchrun.args
trap "exit 1" TERM
echo $$ > torchrun.pid
sleep $SECONDS_TO_RUN & wait""",
}


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a batch script, with stand-ins for Slurm's commands and torchrun."""
    for name, body in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    variables = {"SLURM_JOB_ID": "123456", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2"}
    return {**os.environ, **variables, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SECONDS_TO_RUN": "0"}


def test_the_batch_script_gives_torchrun_what_it_needs(tmp_path: Path, slurm: dict[str, str]) -> None:
    command = ["bash", str(SCRIPTS / "slurm.sbatch"), "mnist-1h", "--out", "a folder"]
    subprocess.run(command, cwd=tmp_path, env=slurm, check=True)
    options = get_args_parser().parse_args((tmp_path / "torchrun.args").read_text().splitlines())
    assert (options.nnodes, options.nproc_per_node, options.rdzv_endpoint) == ("2", "4", "node1:23456")
    assert (options.rdzv_conf, options.local_addr, options.module) == ("is_host=0", "node2", True)
    assert options.training_script_args[-1] == "a folder"
    check_program(options.training_script_args)
    assert "requeue" not in (tmp_path / "scontrol.log").read_text()


@pytest.mark.skipif(shutil.which("setsid") is None, reason="needs setsid")
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_the_batch_script_stops_the_run_and_goes_back_into_the_queue(
    tmp_path: Path, slurm: dict[str, str], number: signal.Signals
) -> None:
    command = ["bash", str(SCRIPTS / "slurm.sbatch"), "mnist-1h"]
    with subprocess.Popen(command, cwd=tmp_path, env=slurm | {"SECONDS_TO_RUN": "20"}) as batch:
        while not (tmp_path / "torchrun.pid").exists():
            time.sleep(0.02)
        time.sleep(0.1)
        batch.send_signal(number)
        assert batch.wait(10) == 1
    assert (tmp_path / "scancel.log").read_text() == "--signal=TERM 123456.0\n"
    assert "requeue 123456\n" in (tmp_path / "scontrol.log").read_text()


def test_the_kubernetes_manifest_agrees_with_itself_and_with_the_program() -> None:
    service, job = yaml.safe_load_all((SCRIPTS / "kubernetes.yaml").read_text())
    name, spec = job["metadata"]["name"], job["spec"]
    pod: dict[str, Any] = spec["template"]["spec"]
    (container,) = pod["containers"]
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert (spec["completionMode"], pod["restartPolicy"]) == ("Indexed", "Never")  # what a podFailurePolicy needs
    assert spec["completions"] == spec["parallelism"] == int(environment["WORLD_SIZE"])
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert environment["MASTER_ADDR"] == f"{name}-0.{pod['subdomain']}"
    assert int(environment["MASTER_PORT"]) == service["spec"]["ports"][0]["port"]
    assert environment.keys() - {"MASTER_ADDR"} <= NUMBERS.keys()
    by_code = [rule for rule in spec["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert [(rule["action"], rule["onExitCodes"]["values"]) for rule in by_code] == [("Ignore", [75]), ("FailJob", [2])]
    assert container["command"] == ["vae-dist", "train"]
    check_program(["train", *container["args"]])


STEADY = soak.Usage(700_000, 5, 2)


def test_a_soak_passes_what_stays_and_finds_what_grows() -> None:
    assert "after 60 minutes" in soak.verdict([STEADY] * 60, 60)
    for grown in (STEADY._replace(resident_kib=715_000), STEADY._replace(open_files=6), STEADY._replace(threads=1)):
        with pytest.raises(soak.FailedSoakError, match=r"after 5 minutes and .* at the end"):
            soak.verdict([STEADY] * 59 + [grown], 60)
        soak.verdict([grown] * 4 + [STEADY] * 56, 60)  # before it has settled


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_soak_reads_what_a_process_holds() -> None:
    before = soak.Usage.of(os.getpid())
    with Path(__file__).open():
        assert soak.Usage.of(os.getpid()).open_files == before.open_files + 1
    assert before.resident_kib > 10_000
