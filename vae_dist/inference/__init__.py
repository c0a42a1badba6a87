"""What a trained model gives: figures of merit, new images, latents and pictures."""
