"""`torch.cuda.amp` where there is no GPU: it warns once made, and changes nothing."""

from __future__ import annotations

from typing import Any

from torturous.amp.grad_scaler import GradScaler as _GradScaler
from torturous.core import dtypes
from torturous.core.dtypes import DType
from torturous.tensor.lowering import autocast as _autocast


class autocast(_autocast):
    """`torch.autocast("cuda")`."""

    def __init__(self, enabled: bool = True, dtype: DType = dtypes.float16, cache_enabled: bool = True) -> None:
        super().__init__("cuda", dtype, enabled, cache_enabled)


class GradScaler(_GradScaler):
    """`torch.amp.GradScaler("cuda")`."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__("cuda", *arguments, **named)


__all__ = ["GradScaler", "autocast"]
