"""`torturous profile`: what is counted, and the three ways it is shown."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from cli.test_run import run
from compiler.oracle import Program
from compiler.test_loop import Case

import torturous as torch
from torturous.cli.page import page
from torturous.cli.profile import Profile
from torturous.cli.table import table
from torturous.cli.trace import chrome_trace
from torturous.runtime.peak import Peak
from torturous.runtime.watching import watching

PEAK = Peak(1e11, 2e10)
M, K, N = 96, 48, 80


@pytest.fixture(scope="module")
def profile() -> Profile:
    """Of a product with an epilogue, twice, and a sum of rows."""
    random = np.random.default_rng(0)
    a, b = (torch.tensor(random.standard_normal(shape, np.float32)) for shape in ((M, K), (K, N)))
    profile = Profile()
    with watching(profile):
        for _ in range(2):
            (a @ b).relu().numpy()  # the product
        (torch.ones(M, K).numpy(), a.exp().sum(1).numpy())
    profile.finish()
    return profile


def kernel_named(profile, name):
    [found] = [kernel for _, kernel in profile.kernels() if name in kernel.name or name in kernel.fused]
    return found


def test_work_is_counted(profile):
    product = kernel_named(profile, "product")
    assert product.calls == 2
    assert product.operations == 2 * (2 * M * K * N + M * N)
    assert product.bytes == 2 * 4 * (M * K + K * N + M * N)
    total = kernel_named(profile, "exp")
    assert total.calls == 1 and total.operations == 2 * M * K and total.bytes == 4 * (M * K + M)


def test_time_goes_to_the_lines_that_recorded(profile):
    product = kernel_named(profile, "product")
    assert any(re.search(r"test_profile\.py:\d+ in profile", line) for line in product.lines)
    assert 0 < product.seconds <= profile.in_kernels <= profile.seconds
    share, limit = product.share(PEAK)
    assert limit in ("arithmetic", "memory")
    assert share == pytest.approx(max(product.operations / 1e11, product.bytes / 2e10) / product.seconds)


def test_kernels_of_a_loop_are_called_at_every_step():
    steps, program, profile = 5, Program(), Profile()
    with watching(profile):
        program.compiled(Case(program, "cell", steps).loop(reverse=False))
    profile.finish()
    product = kernel_named(profile, "product")
    assert product.calls == steps
    [event] = [event for event in profile.events if not event.made]
    numbers = [number for number, _, _ in event.kernels]
    [plan] = profile.plans.values()
    assert [numbers.count(number) for number in range(len(plan.kernels))] == [each.calls for each in plan.kernels]
    assert all(read < number for number, each in enumerate(plan.kernels) for read in each.reads)
    assert len(chrome_trace(profile)["traceEvents"]) > len(numbers) and "product" in page(profile, PEAK, "loop")


def test_the_table_names_plans_and_kernels(profile):
    text = table(profile, PEAK, most=1)
    assert "100 GFLOP/s" in text and "test_profile.py" in text
    rest = len(list(profile.kernels())) - 1
    assert f"{rest} further kernels" in text


def test_the_trace_is_what_chrome_reads(profile):
    trace = json.loads(json.dumps(chrome_trace(profile)))
    complete = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    kernels = [event for event in complete if "fused" in event["args"]]
    assert len(kernels) == sum(kernel.calls for _, kernel in profile.kernels())
    assert all(event["dur"] >= 0 and 0 <= event["ts"] <= profile.seconds * 1e6 for event in complete)
    # Each run contains its kernels.
    runs = [event for event in complete if event["name"].startswith("run")]
    assert all(any(run["ts"] <= k["ts"] and k["ts"] + k["dur"] <= run["ts"] + run["dur"] + 0.01 for run in runs)
               for k in kernels)


class Outside(HTMLParser):
    """Collects whatever a page would fetch, and its scripts."""

    def __init__(self):
        super().__init__()
        self.fetched, self.scripts, self.within = [], [], None

    def handle_starttag(self, tag, attributes):
        self.fetched += [value for name, value in attributes if name in ("src", "href")]
        self.within = tag

    def handle_data(self, data):
        if self.within == "script":
            self.scripts.append(data)

    def handle_endtag(self, tag):
        self.within = None


def test_the_page_stands_alone(profile, tmp_path):
    text = page(profile, PEAK, 'train.py "</script><b>"')
    parser = Outside()
    parser.feed(text)
    assert parser.fetched == [] and not re.search(r"https?://|@import|url\(", text)
    [script] = parser.scripts
    data = json.loads(re.search(r"const profile = (\{.*\});\n", script)[1])
    assert data["command"] == 'train.py "</script><b>"' and data["complete"]
    assert len(data["plans"]) == len(profile.plans)
    assert sum(len(event[4]) // 3 for event in data["events"]) == sum(k.calls for _, k in profile.kernels())
    for plan in data["plans"]:
        for index, kernel in enumerate(plan["kernels"]):
            assert all(plan["kernels"][read]["level"] < kernel["level"] and read < index for read in kernel["reads"])
    if shutil.which("node"):
        (tmp_path / "page.js").write_text(script)
        subprocess.run(["node", "--check", str(tmp_path / "page.js")], check=True)


def test_a_program_is_profiled_whatever_its_end(tmp_path):
    done = run(tmp_path, """
        import sys, torch
        print((torch.arange(1000.0) * 2).relu().sum().item())
        sys.exit(3)
    """, command=("profile", "--trace", "trace.json"))
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("999000.0\n") and "program.py:3" in done.stdout
    assert "measured peak" in done.stdout
    assert (tmp_path / "torturous-profile.html").read_text().startswith("<!doctype html>")
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def test_no_page_where_none_is_wanted(tmp_path):
    done = run(tmp_path, "print('nothing computed')", command=("profile", "--no-html"))
    assert done.returncode == 0, done.stderr
    assert "0 runs" in done.stdout and not list(tmp_path.glob("*.html"))


def test_products_beyond_borders_are_not_counted():
    x, w = torch.ones(16, 3, 6, 5), torch.ones(4, 3, 3, 3)
    profile = Profile()
    with watching(profile):
        torch.nn.functional.conv2d(x, w, padding=1).numpy()
    rows, columns = (sum(0 <= at + tap - 1 < size for at in range(size) for tap in range(3)) for size in (6, 5))
    product = kernel_named(profile, "product")
    assert product.operations == 2 * 16 * 3 * 4 * rows * columns
