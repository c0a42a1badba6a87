"""The processes of a run: launching, rendezvous, collectives, signals and devices."""
