"""Ranks of one run without the seconds that importing torch takes: each is a fork of a server that has done it."""

import contextlib
import multiprocessing
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae_dist.distributed.launcher import free_port, rank_environment

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.ranks_preload"])
LONGEST_S = 120


def train_on(processes: int, config: Mapping[str, Any], out: Path) -> None:
    """Train a config with so many processes, as `vae-dist train --num-processes` does; all must get to the end."""
    port = free_port()
    out.parent.mkdir(parents=True, exist_ok=True)
    ranks = [
        CONTEXT.Process(target=_rank, args=(rank, processes, port, dict(config), out)) for rank in range(processes)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(LONGEST_S)
        if rank.exitcode is None:
            rank.kill()
    assert [rank.exitcode for rank in ranks] == [0] * processes, out.with_suffix(".log").read_text()


def _rank(rank: int, processes: int, port: int, config: dict[str, Any], out: Path) -> None:
    os.environ.update(rank_environment(rank, processes, port))
    with out.with_suffix(".log").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            from vae_dist import Config, train

            train(Config.model_validate(config), out)
        except BaseException as error:
            print(f"rank {rank}: {error!r}", file=log, flush=True)
            os._exit(1)
    os._exit(0)  # as the command line does: gloo's threads can abort an interpreter that is taken down
