"""The program without the seconds that importing torch takes: forked by the server of `tests.ranks`.

It is the real command line in a process of its own: exit codes, signals, output, environment and folder are real. What
it doesn't show is the start of an interpreter, imports, and how `subprocess` starts a launcher's ranks. The same goes
for `accelerate launch` of one process.
"""

import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from tests.ranks import CONTEXT
from vae_dist.distributed.signals import SIGNALS

Main = Callable[[Sequence[str], Mapping[str, str]], None]


def vae_dist(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run `vae-dist ARGUMENTS`; what it launches is forked."""
    from vae_dist.distributed import launcher

    launcher.subprocess = SimpleNamespace(Popen=_ForkedRank)  # type: ignore[attr-defined, assignment]
    _main(arguments, environment)


def accelerate_launch(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run `accelerate launch ARGUMENTS`; the one process that it starts is forked."""
    with _started_as("accelerate", arguments, environment):
        from accelerate.commands import launch  # reads the environment

        launch.subprocess = SimpleNamespace(Popen=_ForkedRank, CalledProcessError=subprocess.CalledProcessError)
        launch.main()


class Program:
    """A program that is running, with the methods of a `subprocess.Popen`; end it with `kill`.

    Args:
        arguments: of the command line.
        cwd: folder to run in.
        environment: all of it.
        stdout: file for what it prints.
        stderr: file for its errors.
        main: of the program.
    """

    def __init__(
        self,
        *arguments: str,
        cwd: Path,
        environment: Mapping[str, str],
        stdout: Path,
        stderr: Path,
        main: Main = vae_dist,
    ) -> None:
        files = (str(stdout), str(stderr))
        self._process = CONTEXT.Process(target=_run, args=(main, arguments, str(cwd), dict(environment), files))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, minus the signal's number if one ended it; None while it runs."""
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("vae-dist", timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def call(
    *arguments: str, cwd: Path, environment: Mapping[str, str], main: Main = vae_dist, timeout_s: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as `subprocess.run` does."""
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
        program = Program(*arguments, cwd=cwd, environment=environment, stdout=stdout, stderr=stderr, main=main)
        try:
            code = program.wait(timeout_s)
        finally:
            program.kill()
        return subprocess.CompletedProcess(arguments, code, stdout.read_text(), stderr.read_text())


def _run(
    main: Main, arguments: Sequence[str], cwd: str, environment: Mapping[str, str], files: tuple[str, str]
) -> None:
    _default_handlers()
    os.chdir(cwd)
    for descriptor, name in enumerate(files, 1):
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    main(arguments, environment)


class _ForkedRank:
    """What a forked launcher starts instead of an interpreter; with the methods of `subprocess.Popen` that it uses."""

    def __init__(self, command: Sequence[str], *, env: Mapping[str, str], start_new_session: bool = False) -> None:
        _, dash_m, package, *arguments = command
        assert (dash_m, package) == ("-m", "vae_dist")
        self.returncode: int | None = None
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # the launcher's handlers are not the rank's
        self.pid = os.fork()
        if self.pid == 0:
            _default_handlers()
            if start_new_session:
                os.setsid()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            try:
                _main(arguments, env)
            except SystemExit as end:
                os._exit(end.code if isinstance(end.code, int) else 1)
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def poll(self) -> int | None:
        return self._reap(os.WNOHANG)

    def wait(self) -> int | None:
        return self._reap(0)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _reap(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def _default_handlers() -> None:
    """Handle signals as an interpreter does that was started in a terminal."""
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _main(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    from vae_dist.cli import main

    with _started_as("vae-dist", arguments, environment):
        main()


@contextmanager
def _started_as(program: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[None]:
    """Give this process streams, arguments and environment of its own."""
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [program, *arguments]
    encoding = environment.get("PYTHONIOENCODING", "utf-8")
    sys.stdout = sys.__stdout__ = open(1, "w", encoding=encoding, closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(  # type: ignore[misc]  # noqa: SIM115
        2, "w", encoding=encoding, closefd=False, buffering=1
    )
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
