"""Evaluation of trained models, sampling, encoding and decoding, and their pictures."""
