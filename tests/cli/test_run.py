"""`torturous run`: unchanged PyTorch programs, in which `import torch` means torturous."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


def run(
    folder: Path, program: str, *arguments: str, command: tuple[str, ...] = ("run",)
) -> subprocess.CompletedProcess:
    """Runs `python -m torturous run program.py …` in a folder of its own."""
    (folder / "program.py").write_text(textwrap.dedent(program))
    return subprocess.run(
        [sys.executable, "-m", "torturous", *command, "program.py", *arguments], cwd=folder, capture_output=True,
        text=True, timeout=120, env={"PYTHONPATH": str(REPOSITORY), "PATH": "", "HOME": str(folder)})


IMPORTS = """
    import sys
    import torch, torch.nn as nn
    import torch.nn.functional as F
    import torch.utils.data.dataset
    from torch import optim
    from torch.autograd import Function
    from torch.nn.modules.linear import Linear
    from torch.optim.lr_scheduler import StepLR
    from torch.utils.data import DataLoader
    import torturous, torturous.nn.functional

    assert torch is torturous and F is torturous.nn.functional is nn.functional
    assert Linear is torturous.nn.Linear and DataLoader is torturous.utils.data.DataLoader
    assert sys.modules["torch.nn"] is torturous.nn and torturous.nn.__spec__.name == "torturous.nn"
    assert torch.nn.functional.__name__ == "torturous.nn.functional"
    layer = nn.Linear(3, 2)
    layer(torch.ones(4, 3)).sum().backward()
    print(layer.weight.grad.tolist(), sys.argv, __name__, __file__, sys.path[0])
"""


def test_torch_and_its_modules_are_ours(tmp_path):
    done = run(tmp_path, IMPORTS, "--epochs", "3")
    assert done.returncode == 0, done.stderr
    expected = f"[[4.0, 4.0, 4.0], [4.0, 4.0, 4.0]] ['program.py', '--epochs', '3'] __main__ program.py {tmp_path}\n"
    assert done.stdout == expected


def test_neighbours_of_the_program_can_be_imported_and_see_the_same_torch(tmp_path):
    (tmp_path / "model.py").write_text("import torch\n\nclass Net(torch.nn.Module):\n    pass\n")
    done = run(tmp_path, "import torturous; from model import Net; assert issubclass(Net, torturous.nn.Module)")
    assert done.returncode == 0, done.stderr


def test_modules_that_are_not_there_say_so(tmp_path):
    done = run(tmp_path, "import torch.abacus.beads")
    assert done.returncode == 1
    assert "ModuleNotFoundError: torturous has no module 'torch.abacus'" in done.stderr


def test_exit_codes_and_errors_are_the_programs_own(tmp_path):
    assert run(tmp_path, "import sys; sys.exit(7)").returncode == 7
    done = run(tmp_path, "import torch\ntorch.ones(2, 3) @ torch.ones(2, 3)")
    assert done.returncode == 1 and 'program.py", line 2' in done.stderr and "RuntimeError" in done.stderr


def test_what_a_program_leaves_for_the_end_still_finds_it(tmp_path):
    done = run(tmp_path, """
        import atexit, __main__
        word = "kept"
        atexit.register(lambda: print(word, __main__.word))
    """)
    assert done.stdout == "kept kept\n", done.stderr


def test_modules_run_by_name(tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text("import sys, torch; print(torch.__name__, sys.argv[1:])")
    done = subprocess.run([sys.executable, "-m", "torturous", "run", "-m", "package", "x"], cwd=tmp_path,
                          capture_output=True, text=True, env={"PYTHONPATH": str(REPOSITORY)})
    assert done.stdout == "torturous ['x']\n", done.stderr


def test_a_process_with_pytorch_in_it_is_refused(tmp_path):
    done = run(tmp_path, """
        import sys
        from types import ModuleType
        from torturous.cli.aliasing import alias_torch
        sys.modules["torch"] = ModuleType("torch")
        try:
            alias_torch()
        except RuntimeError as error:
            print(error)
    """)
    assert "PyTorch has been imported" in done.stdout


@pytest.mark.parametrize("arguments", [(), ("fly",), ("run",)])
def test_misuse_is_explained(tmp_path, arguments):
    done = subprocess.run([sys.executable, "-m", "torturous", *arguments], cwd=tmp_path, capture_output=True, text=True,
                          env={"PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == 2 and "usage: torturous" in done.stderr
