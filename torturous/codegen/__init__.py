"""Floor 4: in which instructions. Targets, the LLVM emitter, kernels and the driver, all as IR text."""
