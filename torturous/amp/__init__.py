"""`torch.amp`: mixed precision, and the scaling of losses that goes with float16."""

from __future__ import annotations

from torturous.amp.grad_scaler import GradScaler
from torturous.tensor.lowering import autocast, is_autocast_available

__all__ = ["GradScaler", "autocast", "is_autocast_available"]
