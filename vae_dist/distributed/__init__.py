"""The processes of a run: how they are launched, find each other, agree, and are told to stop."""
