"""A profile as a text table."""

from __future__ import annotations

from torturous.cli.profile import KernelProfile, PlanProfile, Profile
from torturous.runtime.peak import Peak

MOST_LINE = 60


def table(profile: Profile, peak: Peak, most: int) -> str:
    """Plans and the `most` most expensive kernels. Kernels ran one after the other while watched."""
    compiled = sum(plan.compiled for plan in profile.plans.values())
    made = sum(plan.made is not None for plan in profile.plans.values())
    runs = sum(plan.runs for plan in profile.plans.values())
    lines = [
        f"{duration(profile.seconds)} in all: {duration(profile.in_kernels)} in kernels, {duration(profile.making)} "
        f"making {made} plans ({compiled} kernels compiled), the rest in Python; {runs} runs",
        f"measured peak: {peak.operations / 1e9:.0f} GFLOP/s (float32), {peak.bandwidth / 1e9:.1f} GB/s (triad); "
        "kernels are compared with the one they are nearer to, ari(thmetic) or mem(ory)",
        "",
        f"{'plan':>6}{'runs':>8}{'total':>11}{'a run':>11}{'share':>8}{'rows':>7}{'kernels':>9}{'levels':>8}"
        f"{'made in':>11}  last recorded at",
    ]
    whole = profile.in_kernels or 1.0
    for plan in sorted(profile.plans.values(), key=lambda plan: -plan.seconds):
        lines.append(_plan_line(plan, whole))
    ranked = sorted(profile.kernels(), key=lambda pair: -pair[1].seconds)
    lines += ["", f"{'plan':>6}{'calls':>8}{'total':>11}{'a call':>11}{'share':>8}{'GFLOP/s':>10}{'GB/s':>8}"
                  f"{'of peak':>9}  {'kernel':32}  recorded at"]
    lines += [_kernel_line(plan, kernel, whole, peak) for plan, kernel in ranked[:most]]
    if len(ranked) > most:
        rest = sum(kernel.seconds for _, kernel in ranked[most:])
        lines.append(f"{'':6}{len(ranked) - most} further kernels, {duration(rest)} together")
    return "\n".join(lines)


def _plan_line(plan: PlanProfile, whole: float) -> str:
    kernels = sum(kernel.seconds for kernel in plan.kernels)
    made = "" if plan.made is None else duration(plan.made)
    return (f"{plan.number:>6}{plan.runs:>8}{duration(plan.seconds):>11}"
            f"{duration(plan.seconds / max(plan.runs, 1)):>11}{kernels / whole:>8.1%}{plan.rows:>7}"
            f"{len(plan.kernels):>9}{plan.levels:>8}{made:>11}  {_shortened(plan.line)}")


def _kernel_line(plan: PlanProfile, kernel: KernelProfile, whole: float, peak: Peak) -> str:
    seconds = kernel.seconds or float("inf")
    share, limit = kernel.share(peak)
    name = kernel.name if len(kernel.name) <= 32 else kernel.name[:31] + "…"
    return (f"{plan.number:>6}{kernel.calls:>8}{duration(kernel.seconds):>11}"
            f"{duration(kernel.seconds / max(kernel.calls, 1)):>11}{kernel.seconds / whole:>8.1%}"
            f"{kernel.operations / seconds / 1e9:>10.1f}{kernel.bytes / seconds / 1e9:>8.1f}"
            f"{f'{share:.0%} {limit[:3]}':>9}  {name:32}  {_shortened(kernel.lines[0] if kernel.lines else '')}")


def _shortened(line: str) -> str:
    """The end of a line that is too long, where file and number stand."""
    return line if len(line) <= MOST_LINE else "…" + line[1 - MOST_LINE:]


def duration(seconds: float) -> str:
    for unit, factor in (("µs", 1e6), ("ms", 1e3)):
        if seconds * factor < 1000:
            return f"{seconds * factor:.1f} {unit}"
    return f"{seconds:.2f} s"
