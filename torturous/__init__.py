"""PyTorch's API in pure Python, on NumPy and LLVM."""
