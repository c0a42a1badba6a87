"""Reports of a run: its summary, progress on the terminal, metrics.jsonl and trackers."""
