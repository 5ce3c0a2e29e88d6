"""Floor 1: what things are. Data types and promotion, shapes, errors, settings; knows nothing of tensors."""
