"""`python -m vae_dist`, which is what accelerate and torchrun launch, and the installed program `vae-dist`."""

import signal


def main() -> None:
    """Run the program."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(
            signal.SIGINT, signal.SIG_DFL
        )  # first of all: importing takes a moment, and would show a traceback
    from vae_dist.cli import main as run_program

    run_program()


if __name__ == "__main__":
    main()
