"""A signal that comes while data are read ends the reading on all processes, and loses nothing."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.ranks import call_on
from tests.test_stopping import Running
from vae_dist import Run, train
from vae_dist.config import DigitsConfig
from vae_dist.data import Dataset, load_dataset
from vae_dist.distributed.process_group import ProcessGroup
from vae_dist.distributed.rendezvous import join_process_group
from vae_dist.distributed.signals import Stopped, StopSignals
from vae_dist.distributed.stoppable import all_ranks_or_stop

LONGEST_S = 10.0


def slow() -> None:
    time.sleep(60)


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGTERM, "preempted"), (signal.SIGINT, "interrupted")])
def test_a_signal_ends_long_work(number: int, reason: str) -> None:
    with StopSignals() as signals:
        threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
        with pytest.raises(Stopped, match=reason):
            all_ranks_or_stop(slow, ProcessGroup(), signals)
        with pytest.raises(Stopped, match=reason):  # one that came before counts, too
            all_ranks_or_stop(slow, ProcessGroup(), signals)


def stop_one_of_two(number: int, reason: str) -> None:
    group = join_process_group()
    with StopSignals() as signals:
        assert all_ranks_or_stop(lambda: group.rank, group, signals) == group.rank
        if group.rank == 1:
            threading.Timer(0.2, os.kill, (os.getpid(), number)).start()
        began = time.monotonic()
        with pytest.raises(Stopped, match=reason):  # also where one is done already
            all_ranks_or_stop(slow if group.rank == 0 else lambda: time.sleep(1), group, signals)
        assert time.monotonic() - began < LONGEST_S
    group.close()


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGUSR1, "preempted"), (signal.SIGINT, "interrupted")])
def test_a_signal_to_one_process_ends_the_work_of_all(tmp_path: Path, number: int, reason: str) -> None:
    call_on(2, tmp_path / "log", stop_one_of_two, int(number), reason)


@pytest.mark.filterwarnings("ignore:train.steps was")
def test_a_run_that_was_stopped_while_data_were_read_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def config(steps: int) -> dict[str, object]:
        quick = {"steps": steps, "batch_size": 16, "threads": 1, "precision": "fp32"}
        return {"train": quick, "model": {"h_dim": 8}}

    digits = load_dataset(DigitsConfig(val_size=10))

    def load(_: object) -> Dataset:
        os.kill(os.getpid(), signal.SIGTERM)
        return digits

    with monkeypatch.context() as patch:
        patch.setattr("vae_dist.training.run_data.load_dataset", load)
        stopped = train(config(2), tmp_path / "run")
        assert (stopped.status, stopped.step) == ("preempted", 0)
        assert Run(tmp_path / "run").status["status"] == "preempted"
    assert train(config(2), tmp_path / "run").status == "finished"
    with monkeypatch.context() as patch:
        patch.setattr("vae_dist.training.run_data.load_dataset", load)
        longer = train(config(4), tmp_path / "run")
        assert (longer.status, longer.step) == ("preempted", 2)


@pytest.mark.parametrize(("processes", "number", "code"), [("1", signal.SIGINT, 130), ("2", signal.SIGTERM, 75)])
def test_decoding_pictures_heeds_signals(tmp_path: Path, processes: str, number: int, code: int) -> None:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (3000, 2000)).save(tmp_path / "pictures" / "0.jpg")
    for copy in range(1, 2000):  # minutes of decoding
        os.link(tmp_path / "pictures" / "0.jpg", tmp_path / "pictures" / f"{copy}.jpg")
    data = (f"data={{name: folder, root: {tmp_path / 'pictures'}, size: 8}}", "model.likelihood=bernoulli")
    running = Running(tmp_path, *(part for value in data for part in ("--set", value)), "--num-processes", processes)
    try:
        running.wait_until((running.run / "config.yaml").exists)
        time.sleep(0.5)
        running.process.send_signal(number)
        assert running.process.wait(LONGEST_S) == code, running.errors()
        assert running.status()["status"] == {130: "interrupted", 75: "preempted"}[code]
        assert "Traceback" not in running.errors()
    finally:
        running.process.kill()
