"""A profile as one HTML page that needs nothing else: `page.html` with the profile as JSON in it."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from torturous.cli.profile import Event, Profile
from torturous.runtime.peak import Peak

MOST_KERNEL_EVENTS = 20_000
"""Runs of kernels that the page's timeline shows, from the program's start."""
PLACE = "/*PROFILE*/null"


def page(profile: Profile, peak: Peak, command: str) -> str:
    """The page, for a program started by `command`."""
    data = json.dumps(_data(profile, peak, command), separators=(",", ":"), ensure_ascii=False)
    template = resources.files("torturous.cli").joinpath("page.html").read_text(encoding="utf-8")
    # Within a script element, nothing but its end tag (and a comment's beginning) must not occur.
    return template.replace(PLACE, data.replace("<", "\\u003c"))


def _data(profile: Profile, peak: Peak, command: str) -> dict[str, Any]:
    plans = [
        {
            "number": plan.number, "line": plan.line, "runs": plan.runs, "seconds": plan.seconds, "rows": plan.rows,
            "levels": plan.levels, "variables": plan.variables, "arena": plan.arena, "made": plan.made,
            "compiled": plan.compiled,
            "kernels": [
                {
                    "name": kernel.name, "level": kernel.level, "fused": kernel.fused, "lines": kernel.lines,
                    "text": kernel.text, "reads": kernel.reads, "calls": kernel.calls, "seconds": kernel.seconds,
                    "operations": kernel.operations, "bytes": kernel.bytes, "share": kernel.share(peak),
                }
                for kernel in plan.kernels
            ],
        }
        for plan in profile.plans.values()
    ]
    shown, kernels = [], 0
    for event in profile.events:
        kernels += len(event.kernels)
        if kernels > MOST_KERNEL_EVENTS:
            break
        shown.append(_event(event))
    return {
        "command": command, "seconds": profile.seconds, "in_kernels": profile.in_kernels, "making": profile.making,
        "peak": {"operations": peak.operations, "bandwidth": peak.bandwidth}, "plans": plans, "events": shown,
        "complete": len(shown) == len(profile.events) and not profile.lost,
    }


def _event(event: Event) -> list[Any]:
    """[plan, made, start, seconds, [number, start, seconds of each kernel, …]] in microseconds."""
    times = [each for number, start, seconds in event.kernels
             for each in (number, round(start * 1e6, 2), round(seconds * 1e6, 2))]
    return [event.plan, int(event.made), round(event.start * 1e6, 2), round(event.seconds * 1e6, 2), times]
