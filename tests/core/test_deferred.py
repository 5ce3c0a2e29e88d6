"""What importing the package imports, and what waits."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from torturous.core.deferred import deferred

PROGRAM = """
import json, sys
import torturous as torch
def heavy():
    return sorted(name for name in sys.modules
                  if name.startswith(("torturous.compiler", "torturous.codegen", "llvmlite", "torturous.native")))
x = torch.ones(3) + 1
torch.get_num_threads()
before = heavy()
value = x.tolist()
print(json.dumps([before, value, heavy()]))
"""


def test_compiling_is_imported_by_the_first_plan():
    output = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True).stdout
    before, value, after = json.loads(output)
    assert before == [] and value == [2.0] * 3
    assert {"torturous.compiler.fuse", "torturous.codegen.kernels"} <= set(after)


def test_a_deferred_module_is_the_module():
    module = deferred("torturous.core.shapes")
    from torturous.core import shapes

    assert module.broadcast is shapes.broadcast
    with pytest.raises(AttributeError, match="nothing"):
        print(module.nothing)
    missing = deferred("torturous.core.missing")
    with pytest.raises(ModuleNotFoundError, match="torturous.core.missing"):
        print(missing.anything)
