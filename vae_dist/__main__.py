"""`python -m vae_dist`, which is what accelerate and torchrun launch."""

from vae_dist.cli import main

main()
