"""Floor 8: the command line. `torturous run`, `profile` and `export`, also as `python -m torturous …`."""
