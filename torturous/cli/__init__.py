"""Floor 8: the command line. `torturous run` and `torturous profile`, also as `python -m torturous …`."""
