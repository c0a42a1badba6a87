"""Demonstrate the tutorial's model on four random inputs."""

import torch

from vae_dist import VariationalAutoEncoder

if __name__ == "__main__":
    x = torch.randn(4, 28 * 28)
    vae = VariationalAutoEncoder(input_dim=784)
    x_reconstructed, mu, sigma = vae(x)
    print(f"Reconstructed Shape: {x_reconstructed.shape}")
    print(f"Latent Mean Shape: {mu.shape}")
    print(f"Latent Sigma Shape: {sigma.shape}")
