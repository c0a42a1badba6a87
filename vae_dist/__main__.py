"""`python -m vae_dist`, which is what accelerate and torchrun launch, and the installed program `vae-dist`."""

from vae_dist.distributed.signals import let_ctrl_c_end_quietly


def main() -> None:
    """Run the program."""
    let_ctrl_c_end_quietly()  # importing takes a moment
    from vae_dist.cli import main as run_program

    run_program()


if __name__ == "__main__":
    main()
