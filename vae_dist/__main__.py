"""`python -m vae_dist`, which is what accelerate and torchrun launch, and the installed program `vae-dist`."""

import signal
import sys


def main() -> None:
    """Run the program."""
    # First of all: importing takes a moment, and Ctrl-C would show a traceback.
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.argv[1:2] == ["train"]:
        from vae_dist.distributed.signals import note_early

        note_early()
    from vae_dist.cli import main as run_program

    run_program()


if __name__ == "__main__":
    main()
