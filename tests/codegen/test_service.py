"""The pool of compiling processes: order, errors, deaths, threads, forks and ends."""
from __future__ import annotations

import ast
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from torturous.codegen import helper
from torturous.codegen.objectfile import defined_symbols
from torturous.codegen.service import CompilationError, Service, Source
from torturous.codegen.target import host_target

ROOT = Path(helper.__file__).parents[2]
# An intrinsic of AMD's graphics processors: no other machine can select it, and LLVM aborts.
ABORTING = """
define i32 @f() {
  %r = call i32 @llvm.amdgcn.workitem.id.x()
  ret i32 %r
}
declare i32 @llvm.amdgcn.workitem.id.x()
"""
INVALID = "define i32 @f() { ret float 1.0 }"
UNSOUND = "define i32 @f() {\n  %a = add i32 %b, 1\n  %b = add i32 1, 1\n  ret i32 %a\n}"
needs_posix = pytest.mark.skipif(os.name == "nt", reason="kills and forks as POSIX has them")


def source(name: str, length: int = 1) -> Source:
    steps = "".join(f"  %v{i + 1} = mul i32 %v{i}, %v{i}\n" for i in range(length))
    return Source(f"define i32 @{name}(i32 %v0) {{\n{steps}  ret i32 %v{length}\n}}", f"{name} at train.py:1")


@pytest.fixture(scope="module")
def service():
    service = Service(helpers=2)
    yield service
    service.close()


def pids(service: Service) -> set[int]:
    return {process._process.pid for process in service._helpers}


def wait_until(condition, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def running(pid: int) -> bool:
    """Whether a process is alive; one that has ended and only waits to be reaped is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not Path("/proc/self/stat").exists()


@pytest.mark.parametrize("seed", range(3))
def test_objects_come_in_the_order_of_their_sources(service, seed):
    chance = random.Random(seed)
    sources = [source(f"kernel_{i}", chance.randint(1, 200)) for i in range(chance.randint(1, 12))]
    objects = service.compile(sources, host_target())
    assert [defined_symbols(data) for data in objects] == [{f"kernel_{i}"} for i in range(len(sources))]


def test_objects_are_reproducible(service):
    one, two = service.compile([source("k", 50)] * 2, host_target())
    with_one_helper = Service(helpers=1)
    try:
        assert one == two == with_one_helper.compile([source("k", 50)], host_target())[0]
    finally:
        with_one_helper.close()


def test_nothing_to_compile(service):
    assert service.compile([], host_target()) == []


@pytest.mark.parametrize("text", [INVALID, UNSOUND, "nonsense", "define void @f() {"])
def test_invalid_ir_is_an_error_and_harms_no_helper(service, text):
    service.start()
    before = pids(service)
    with pytest.raises(CompilationError, match="LLVM could not compile relu at train.py:12: ") as caught:
        service.compile([Source(text, "relu at train.py:12")], host_target())
    assert caught.value.description == "relu at train.py:12" and not caught.value.aborted
    assert caught.value.detail
    assert pids(service) == before


@pytest.mark.parametrize("bad", [0, 3, 6])
def test_an_abort_of_llvm_is_an_error_of_one_source(service, bad):
    sources = [source(f"k{i}", 20) for i in range(7)]
    sources[bad] = Source(ABORTING, "gelu at model.py:31")
    outcomes = service.outcomes(sources, host_target())
    error = outcomes.pop(bad)
    assert isinstance(error, CompilationError) and error.aborted
    assert "gelu at model.py:31" in str(error) and "Cannot select" in str(error)
    assert all(isinstance(data, bytes) for data in outcomes)
    with pytest.raises(CompilationError, match="aborted while compiling gelu"):
        service.compile(sources, host_target())
    assert len(service.compile([source("after")], host_target())) == 1


def test_what_one_source_made_llvm_say_is_not_blamed_on_the_next():
    service = Service(helpers=1)
    try:
        service.compile([source("good")], host_target())
        for word, other in (("first_nonsense", "second_nonsense"), ("second_nonsense", "first_nonsense")):
            text = f'define void @f() {{ call void asm sideeffect "{word}", ""()\n ret void }}'
            with pytest.raises(CompilationError, match=f"while compiling {word}: ") as caught:
                service.compile([Source(text, word)], host_target())
            assert word in caught.value.detail and other not in caught.value.detail
    finally:
        service.close()


def test_inline_assembly_is_understood(service):
    text = 'define void @f() { call void asm sideeffect "nop", ""()\n ret void }'
    assembly = service.assembly(Source(text, "nop"), host_target())
    assert "nop" in assembly
    [data] = service.compile([Source(text, "nop")], host_target())
    assert defined_symbols(data) == {"f"}


def test_assembly_reports_errors_too(service):
    for text in (INVALID, ABORTING):
        with pytest.raises(CompilationError, match="conv1"):
            service.assembly(Source(text, "conv1"), host_target())


@needs_posix
def test_helpers_killed_while_idle_are_replaced(service):
    service.compile([source("k")], host_target())
    before = pids(service)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    objects = service.compile([source(f"k{i}", 10) for i in range(5)], host_target())
    assert [defined_symbols(data) for data in objects] == [{f"k{i}"} for i in range(5)]
    assert not pids(service) & before


@needs_posix
def test_a_source_is_tried_again_when_its_helper_was_killed():
    service = Service(helpers=1)
    try:
        service.start()
        [pid] = pids(service)
        os.kill(pid, signal.SIGSTOP)  # so that it is certainly not done before it is killed
        outcomes: list[bytes] = []
        target = host_target()
        caller = threading.Thread(target=lambda: outcomes.extend(service.compile([source("k")], target)))
        caller.start()
        assert wait_until(lambda: not service._idle)
        time.sleep(0.02)
        os.kill(pid, signal.SIGKILL)
        caller.join(20)
        assert [defined_symbols(data) for data in outcomes] == [{"k"}]
        assert pid not in pids(service)
    finally:
        service.close()


def test_threads_may_share_a_service(service):
    failures = []

    def use(number: int) -> None:
        for repeat in range(3):
            wanted = [f"k{number}_{repeat}_{i}" for i in range(4)]
            objects = service.compile([source(name, 5) for name in wanted], host_target())
            if [defined_symbols(data) for data in objects] != [{name} for name in wanted]:
                failures.append(wanted)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures and not any(thread.is_alive() for thread in threads)
    assert len(service._idle) == len(service._helpers) == 2


def test_closed_services_start_again():
    service = Service(helpers=2)
    try:
        service.compile([source("k")], host_target())
        before = pids(service)
        service.close()
        assert not any(map(running, before)) and not pids(service)
        assert len(service.compile([source("k")], host_target())) == 1
        assert not pids(service) & before
    finally:
        service.close()
    with pytest.raises(ValueError, match="at least one helper"):
        Service(helpers=0)


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "default", "-c", textwrap.dedent(program)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


PROGRAM = """
import os, signal, subprocess, sys, threading
from torturous.codegen.service import Service, Source
from torturous.codegen.target import host_target
service = Service(helpers=2)
text = "define void @f() { ret void }"
source = Source(text, "f")
service.compile([source] * 3, host_target())
print(*(helper._process.pid for helper in service._helpers), flush=True)
"""


@needs_posix
@pytest.mark.parametrize(
    "ending", ["", "raise SystemExit(3)", "os._exit(1)", "os.kill(os.getpid(), signal.SIGKILL)"]
)
def test_helpers_end_with_their_process(ending):
    result = python(PROGRAM + ending)
    found = [int(word) for word in result.stdout.split()]
    assert len(found) == 2
    assert wait_until(lambda: not any(map(running, found)))
    assert result.stderr == ""


@needs_posix
def test_a_forked_child_has_its_own_helpers():
    program = PROGRAM + """
child = os.fork()
if child == 0:
    objects = service.compile([source] * 3, host_target())
    mine = {helper._process.pid for helper in service._helpers}
    print(*mine, flush=True)
    os._exit(0 if len(objects) == 3 else 1)
assert os.waitpid(child, 0)[1] == 0
before = {helper._process.pid for helper in service._helpers}
service.compile([source] * 3, host_target())
assert {helper._process.pid for helper in service._helpers} == before
"""
    result = python(program)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    parents, childs = (set(line.split()) for line in result.stdout.splitlines())
    assert len(parents) == len(childs) == 2 and not parents & childs
    assert wait_until(lambda: not any(running(int(pid)) for pid in parents | childs))


@needs_posix
def test_a_child_that_outlives_its_parent_keeps_no_helper_alive():
    result = python(PROGRAM + """
child = os.fork()
if child == 0:
    devnull = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(devnull, standard)
    import time
    time.sleep(5)
    os._exit(0)
print(child, flush=True)
os._exit(0)
""")
    *helpers, child = (int(word) for word in result.stdout.split())
    try:
        assert wait_until(lambda: not any(map(running, helpers)), seconds=4)
        assert running(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_the_helper_program_needs_nothing_of_the_package():
    imported = set()
    for node in ast.walk(ast.parse(Path(helper.__file__).read_text())):
        if isinstance(node, ast.Import):
            imported.update(name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "torturous").partition(".")[0])
    assert imported - sys.stdlib_module_names == {"llvmlite"}


def test_importing_does_not_load_llvm():
    program = "import sys, torturous.runtime.build; print('llvmlite' in sys.modules)"
    assert python(program).stdout == "False\n"
