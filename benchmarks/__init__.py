"""Benchmarks against PyTorch: both in one process, interleaved, so that a noisy machine is noisy for both."""
