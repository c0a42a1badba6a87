"""Packed sets: pictures decoded or copied once, into safetensors files that are read picture by picture."""
