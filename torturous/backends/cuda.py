"""CUDA's libraries, which are not used here."""

from __future__ import annotations


class _Products:
    """Switches of matrix products on GPUs."""

    allow_tf32 = False
    """Whether products would be rounded to 19 bits."""
    allow_fp16_reduced_precision_reduction = True
    allow_bf16_reduced_precision_reduction = True


matmul = _Products()


def is_built() -> bool:
    return False


def flash_sdp_enabled() -> bool:
    """Whether attention on GPUs would use FlashAttention."""
    return _attention["flash"]


def mem_efficient_sdp_enabled() -> bool:
    return _attention["mem_efficient"]


def math_sdp_enabled() -> bool:
    return _attention["math"]


def enable_flash_sdp(enabled: bool) -> None:
    _attention["flash"] = bool(enabled)


def enable_mem_efficient_sdp(enabled: bool) -> None:
    _attention["mem_efficient"] = bool(enabled)


def enable_math_sdp(enabled: bool) -> None:
    _attention["math"] = bool(enabled)


_attention = {"flash": True, "mem_efficient": True, "math": True}
