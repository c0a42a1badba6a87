"""Run folders: reading one, writing in it, and finding it.

RUN/config.yaml  run.json  metrics.jsonl  status.json  images/  checkpoints/
"""
