"""Processes that decode: what they say, what ends them, and what doesn't."""

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from vae_dist.data.packs.workers import Workers
from vae_dist.errors import UserError

LONGEST_S = 10.0


class Named(NamedTuple):
    name: str


def name_and_process(files: Iterable[Named]) -> tuple[list[str], int]:
    return [file.name for file in files], os.getpid()


def misfortune(files: Iterable[Named]) -> None:
    for file in files:
        match file.name:
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "unreadable":
                raise UserError("unreadable is no picture")
            case "slow":
                time.sleep(60)


def named(*names: str) -> list[Named]:
    return [Named(name) for name in names]


def is_alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def workers() -> Iterator[Workers[Named, tuple[list[str], int]]]:
    two = Workers(name_and_process, 2)
    yield two
    two.close()


def test_work_is_shared_out_and_answers_belong_to_it(workers: Workers[Named, tuple[list[str], int]]) -> None:
    futures = [workers.submit(named(f"{number}", "x")) for number in range(20)]
    assert [future.result()[0] for future in futures] == [[f"{number}", "x"] for number in range(20)]
    assert 1 <= len({future.result()[1] for future in futures} - {os.getpid()}) <= 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_signals_to_all_processes_leave_workers_at_work(
    workers: Workers[Named, tuple[list[str], int]], number: int
) -> None:
    _, process = workers.submit(named("first")).result()
    os.kill(process, number)
    assert workers.submit(named("second")).result() == (["second"], process)


def test_a_process_that_is_ended_is_reported_with_the_file_it_was_on() -> None:
    workers = Workers(misfortune, 1)
    with pytest.raises(UserError, match=r"A process was ended while it decoded killed: memory may have run out\. The"):
        workers.submit(named("a", "killed", "b")).result()
    assert workers.submit(named("a")).result() is None  # another took its place
    workers.close()


def test_an_error_of_the_work_is_raised_here_and_leaves_the_process_at_work() -> None:
    workers = Workers(misfortune, 1)
    with pytest.raises(UserError, match="unreadable is no picture"):
        workers.submit(named("unreadable")).result()
    assert workers.submit(named("a")).result() is None
    assert len(multiprocessing.active_children()) == 1
    workers.close()


def test_closing_ends_processes_in_the_middle_of_their_work() -> None:
    workers = Workers(misfortune, 2)
    futures = [workers.submit(named("slow")) for _ in range(3)]
    wait_until(lambda: len(multiprocessing.active_children()) == 2)
    began = time.monotonic()
    workers.close()
    workers.close()  # once more does no harm
    assert time.monotonic() - began < LONGEST_S
    assert multiprocessing.active_children() == []
    assert all(future.done() for future in futures)


def test_processes_end_with_whoever_used_them_and_never_closed_them() -> None:
    workers = Workers(name_and_process, 1)
    _, process = workers.submit(named("a")).result()
    del workers
    gc.collect()
    assert not is_alive(process)


def use_and_wait(folder: Path) -> None:
    busy, idle = Workers(misfortune, 1), Workers(name_and_process, 1)
    busy.submit(named("slow"))
    _, process = idle.submit(named("a")).result()
    wait_until(lambda: len(multiprocessing.active_children()) == 2)
    pids = [child.pid for child in multiprocessing.active_children()]
    assert process in pids
    (folder / "half").write_text(" ".join(map(str, pids)))
    (folder / "half").rename(folder / "pids")
    time.sleep(60)


def test_processes_end_with_the_one_that_started_them_even_if_it_is_killed(tmp_path: Path) -> None:
    parent = multiprocessing.get_context("spawn").Process(target=use_and_wait, args=(tmp_path,))
    parent.start()
    wait_until((tmp_path / "pids").exists)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert all(map(is_alive, pids))
    parent.kill()
    wait_until(lambda: not any(map(is_alive, pids)))
    parent.join()
