"""A profile as a Chrome trace (the Trace Event Format), which chrome://tracing and Perfetto open."""

from __future__ import annotations

from typing import Any

from torturous.cli.profile import Profile

PROCESS, PLANS, KERNELS = 1, 1, 2


def chrome_trace(profile: Profile) -> dict[str, Any]:
    """Complete events (phase X, microseconds) in two rows: plans made and run, and kernels."""
    plans = list(profile.plans.values())
    events: list[dict[str, Any]] = [
        _name("process_name", 0, "torturous"), _name("thread_name", PLANS, "plans"),
        _name("thread_name", KERNELS, "kernels"),
    ]
    for event in profile.events:
        plan = plans[event.plan]
        title = f"{'make' if event.made else 'run'} plan {event.plan}"
        details: dict[str, Any] = {"line": plan.line, "rows": plan.rows, "kernels": len(plan.kernels)}
        events.append(_complete(title, PLANS, event.start, event.seconds, details))
        for number, start, seconds in event.kernels:
            kernel = plan.kernels[number]
            details = {"lines": kernel.lines, "fused": kernel.fused, "plan": event.plan, "level": kernel.level}
            events.append(_complete(kernel.name, KERNELS, start, seconds, details))
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _name(kind: str, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": PROCESS, "tid": thread, "args": {"name": name}}


def _complete(name: str, thread: int, start: float, seconds: float, details: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "X", "name": name, "pid": PROCESS, "tid": thread, "ts": round(start * 1e6, 3),
            "dur": round(seconds * 1e6, 3), "args": details}
