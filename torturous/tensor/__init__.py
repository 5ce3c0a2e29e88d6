"""Floor 6: what the user holds."""
