"""Floor 3: how a record is computed. Passes from rows to kernels and plans; pure functions."""
