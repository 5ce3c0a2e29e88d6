"""Floor 5: run it. Buffers, workers, the object cache and realization."""
