"""Take optimizer steps down a loss, on the schedule that all toys share. Knows no model and no data."""

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

LEARNING_RATE = 2e-3


def minimize(groups: list[dict[str, Any]], loss: Callable[[float], Tensor], steps: int, name: str) -> None:
    """Take steps with AdamW: a short warm-up, constant to 40 %, then half a cosine down to 2 %."""
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, steps))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    started, average = time.process_time(), 0.0
    for step in range(1, steps + 1):
        value = loss(step / steps)
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        average += (value.item() - average) / min(step, 100)
        if step % 200 == 0 or step == steps:
            log.info("%s %d/%d: loss %.3f, %.0f CPU-s", name, step, steps, average, time.process_time() - started)


def rate_at(step: int, steps: int) -> float:
    """Return the share of the full learning rate at a step."""
    if step < 60:
        return (step + 1) / 60
    done = max(0.0, (step / steps - 0.4) / 0.6)
    return 0.02 + 0.98 * (1 + math.cos(math.pi * min(done, 1.0))) / 2
