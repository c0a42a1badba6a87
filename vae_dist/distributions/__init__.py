"""Probability distributions: posteriors, priors and likelihoods."""
