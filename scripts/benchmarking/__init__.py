"""What `scripts/benchmark` measures, and against what."""
