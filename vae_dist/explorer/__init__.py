"""A page in which a person moves through a model's latent space, and the server of it, for this machine alone."""
