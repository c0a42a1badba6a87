"""A context that several threads are in: entered by the first, left by the last."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier

import pytest

from vae_dist.data.shared_context import SharedContext

THREADS = 3
seen: list[str] = []


@contextmanager
def noted() -> Iterator[None]:
    seen.append("entered")
    try:
        yield
    finally:
        seen.append("left")


@pytest.fixture
def shared() -> SharedContext:
    seen.clear()
    return SharedContext(noted)


def test_the_first_thread_enters_and_the_last_one_leaves(shared: SharedContext) -> None:
    together = Barrier(THREADS)

    def work(_: int) -> None:
        with shared, shared:
            together.wait()
            assert seen == ["entered"]
            together.wait()

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(work, range(THREADS)))
    assert seen == ["entered", "left"]


def test_it_can_be_entered_again_after_an_error(shared: SharedContext) -> None:
    @shared
    def fail() -> None:
        raise ValueError

    for _ in range(2):
        with pytest.raises(ValueError):  # noqa: PT011
            fail()
    assert seen == ["entered", "left"] * 2
