"""Ranks of one run without the seconds that importing torch takes: each is forked by a server that has imported it."""

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vae_dist.distributed.launcher import free_port, rank_environment

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.ranks_preload"])
LONGEST_S = 240


def train_on(processes: int, config: Mapping[str, Any], out: Path) -> None:
    """Train a config on so many processes, as `vae-dist train --num-processes` does; all must get to the end."""
    call_on(processes, out.with_suffix(".log"), _train, dict(config), out)


def call_on(processes: int, log: Path, function: Callable[..., None], *arguments: Any) -> None:
    """Call a function of a module on so many processes, each with the environment of its rank; none may fail.

    Args:
        processes: how many.
        log: gets what they print.
        function: to call.
        arguments: to call it with.
    """
    port = free_port()
    log.parent.mkdir(parents=True, exist_ok=True)
    ranks = [
        CONTEXT.Process(target=_rank, args=(rank, processes, port, log, function, arguments))
        for rank in range(processes)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(LONGEST_S)
        if rank.exitcode is None:
            rank.kill()
    assert [rank.exitcode for rank in ranks] == [0] * processes, log.read_text()


def _rank(
    rank: int, processes: int, port: int, log: Path, function: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(rank_environment(rank, processes, port))
    with log.open("a") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            function(*arguments)
        except BaseException as error:
            print(f"rank {rank}: {error!r}", file=file, flush=True)
            os._exit(1)
    os._exit(0)  # as the command line does: gloo's threads can abort an interpreter that is taken down


def _train(config: dict[str, Any], out: Path) -> None:
    from vae_dist import Config, train

    train(Config.model_validate(config), out)
