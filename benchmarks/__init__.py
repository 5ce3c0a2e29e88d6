"""Benchmarks against PyTorch. `python -m benchmarks [name…]` runs workloads, one module each in this package:
programs are written once, for whatever module is called `torch`, so that both frameworks run the same source.

`benchmarks.suite` measures, `benchmarks.models` holds the networks. `benchmarks.footprint` and
`benchmarks.agreement` are commands of their own.
"""
