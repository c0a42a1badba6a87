"""What a run shows of itself: summary, progress on the terminal, metrics.jsonl, trackers."""
