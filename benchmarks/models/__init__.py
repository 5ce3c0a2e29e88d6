"""Networks as people write them for PyTorch. Each is a function of the module that plays `torch`."""
