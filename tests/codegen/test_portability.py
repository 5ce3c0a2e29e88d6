"""Instruction sets: a sampled corpus gives the same bits on each, and its objects need nothing of anybody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from codegen.corpus import corpus, digest

from torturous.codegen.objectfile import undefined_symbols
from torturous.codegen.target import X86_LEVELS, host_target
from torturous.runtime.objects import ObjectCache

REPOSITORY = Path(__file__).resolve().parents[2]
FREE = {"memcpy", "memset"}
"""What an object may leave undefined; `memmove`, which is allowed as well, should not turn up."""


def runnable() -> list[str]:
    """The instruction sets that this machine has, by name; only its own on ARM."""
    names = []
    for name in X86_LEVELS:
        try:
            host_target(name)
        except (ValueError, NotImplementedError):
            continue
        names.append(name)
    return names or ["native"]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, tuple[dict[str, str], Path]]:
    """For each instruction set: digests by program, and the folder of its objects. Processes run side by side."""
    started = {}
    for name in runnable():
        folder = tmp_path_factory.mktemp(name)
        environment = {**os.environ, "TORTUROUS_TARGET": name, "TORTUROUS_CACHE": str(folder),
                       "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"}
        started[name] = folder, subprocess.Popen(
            [sys.executable, str(REPOSITORY / "tests/codegen/corpus.py")], env=environment, stdout=subprocess.PIPE,
            text=True)
    found = {}
    for name, (folder, process) in started.items():
        text, _ = process.communicate()
        assert process.returncode == 0, name
        found[name] = json.loads(text), folder
    return found


def test_bits_are_equal_on_all_targets(results):
    (first, (expected, _)), *others = results.items()
    assert len(expected) > 100
    for name, (found, _) in others:
        different = [program for program in expected if found[program] != expected[program]]
        assert not different, f"{name} differs from {first} in {different}"
        assert found.keys() == expected.keys()


@pytest.mark.parametrize("name", runnable())
def test_objects_need_nothing_but_copying_and_clearing(results, name):
    _, folder = results[name]
    cache = ObjectCache(folder)
    keys = [path.stem for path in folder.rglob("*.object")]
    assert len(keys) > 200
    for key in keys:
        data = cache.get(key)
        assert data is not None
        assert undefined_symbols(data) <= FREE


def test_digests_tell_results_apart():
    (_, program), *_ = corpus()
    result = program()
    assert digest(result) == digest(result.clone()) != digest(result + 1e-7)
    assert digest([result, result]) != digest([result])
