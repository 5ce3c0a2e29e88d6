"""Batches of which some are computed in another way than others: the same bits as in Python at each of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from native import test_export, test_training
from native.test_export import needs_compiler
from safetensors.numpy import load_file

import torturous as torch
from torturous import Tensor, native, nn
from torturous.ir.contraction import LANES, fills_vectors
from torturous.native.batches import Batches, Filling, filling_of, largest_of_each
from torturous.nn import functional as F

LAYERS: dict[str, Callable[[], nn.Module]] = {
    # The order in which the gradient of its weights is summed depends on how samples fill vectors; for one, on lines.
    "many channels": lambda: nn.Conv2d(1, 40, 3, padding=1),
    "a group each": lambda: nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6)),
    "groups": lambda: nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=2)),
    "small groups": lambda: nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 5, groups=4)),
    # A matrix product for few samples.
    "windows side by side": lambda: nn.Sequential(nn.ConvTranspose2d(1, 4, 2, stride=2), nn.Conv2d(4, 3, 3, stride=2)),
}


class Net(nn.Module):
    def __init__(self, layers: Callable[[], nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = layers()
        self.linear = nn.LazyLinear(5)
        self(torch.zeros(1, 1, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.linear(torch.relu(self.layers(x)).mean((2, 3))), dim=1)


def data(batch: int) -> tuple[Tensor, Tensor]:
    random = np.random.default_rng(batch)
    return (torch.tensor(random.standard_normal((batch, 1, 16, 16)).astype(np.float32)),
            torch.tensor(random.integers(0, 5, batch)))


@needs_compiler
@pytest.mark.parametrize("layers", LAYERS)
def test_training_steps(layers: str, tmp_path: Path) -> None:
    def made() -> tuple[Net, torch.optim.Optimizer]:
        net = Net(LAYERS[layers])
        return net, torch.optim.SGD(net.parameters(), lr=0.1)

    model, optimizer = made()
    native.export_training(model, F.nll_loss, optimizer, data(4), tmp_path, target=test_training.TARGET, shared=False,
                           max_batch=40, name="net")
    program = test_training.build(tmp_path, test_training.DRIVER)
    for batch in (1, 5, 17, 28, 32):
        for name, values in zip(("image", "target"), data(batch), strict=True):
            (tmp_path / name).write_bytes(values.numpy().tobytes())
        subprocess.run([program, tmp_path / "net.safetensors", "0", "0.1", tmp_path / "after", str(batch),
                        tmp_path / "image", tmp_path / "target"], check=True)
        after = load_file(tmp_path / "after")
        twin, twin_optimizer = made()
        test_training.train(twin, twin_optimizer, 3, data(batch), 0.1)
        for key, value in twin.state_dict().items():
            assert after[key].tobytes() == value.numpy().tobytes(), f"{key} at batch {batch}"


@needs_compiler
@pytest.mark.parametrize("layers", ["a group each", "windows side by side"])
def test_inference(layers: str, tmp_path: Path) -> None:
    model = Net(LAYERS[layers]).eval()
    kinds = [((1, 16, 16), torch.float32)]
    for batch in (1, 5, 17, 28, 32):
        bundle = test_export.export(model, kinds, tmp_path, batch=batch, max_batch=40, target="avx2")
        program = test_export.build(bundle, 2)
        inputs = test_export.make_inputs(kinds, batch, seed=batch)
        expected = [model(torch.tensor(inputs[0])).detach().numpy()]
        (got,) = test_export.run(program, bundle, batch, inputs, expected)
        assert got.tobytes() == expected[0].tobytes(), f"batch {batch}"


BRANCHES: dict[str, Callable[[Tensor, list[nn.Module]], Tensor]] = {
    "another operation": lambda x, layers: layers[x.shape[0] > 10](x),
    "other weights": lambda x, layers: layers[2 * (x.shape[0] > 10)](x),
    "another number": lambda x, layers: layers[0](x) * (1.0 if x.shape[0] < 10 else 2.0),
    "a limit": lambda x, layers: layers[0](x[:10]),
}


@pytest.mark.parametrize("max_batch", [16, 48, 50])
@pytest.mark.parametrize("branch", BRANCHES)
def test_what_else_depends_on_the_batch_is_refused(branch: str, max_batch: int, tmp_path: Path) -> None:
    """Though some batches have a program of their own: not all those beyond ten."""

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Conv2d(1, 40, 3, padding=padding) for padding in (0, 1, 0)])

        def forward(self, x: Tensor) -> Tensor:
            return BRANCHES[branch](x, list(self.layers)).mean((2, 3))

    model = Branching()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    examples = torch.zeros(4, 1, 9, 9), torch.zeros(4, 40)
    with pytest.raises(NotImplementedError, match="batch"):
        native.export_training(model, lambda out, target: (out.mean() - target.mean()).square(), optimizer, examples,
                               tmp_path, target="avx2", shared=False, max_batch=max_batch, name="net")


def test_fillings() -> None:
    for batch in range(1, 300):
        filling = filling_of(batch)
        assert (filling is Filling.ONE) == (batch == 1)
        assert (filling is Filling.WHOLE) == (batch % LANES == 0)
        assert (filling in (Filling.NEARLY, Filling.WHOLE)) == fills_vectors(batch)


@needs_compiler
def test_conditions_in_c(tmp_path: Path) -> None:
    sets = [{Filling.ONE}, {Filling.WHOLE}, {Filling.NEARLY}, {Filling.NEARLY, Filling.WHOLE},
            {Filling.ONE, Filling.NEARLY}]
    batches = [Batches(7), Batches(least=16), *(Batches(fillings=frozenset(each)) for each in sets)]
    checks = " ".join(f"putchar('0' + ({each.c_condition()}));" for each in batches)
    source = (f"#include <stdint.h>\n#include <stdio.h>\nint main(void) {{ for (int batch = 1; batch < 300; batch++) "
              f"{{ {checks} putchar('\\n'); }} return 0; }}")
    (tmp_path / "libnet.a").write_bytes(b"!<arch>\n")
    ran = subprocess.run([test_training.build(tmp_path, source)], check=True, capture_output=True, text=True)
    for batch, line in enumerate(ran.stdout.split(), 1):
        assert line == "".join(str(int(each.hold(batch))) for each in batches), batch


@pytest.mark.parametrize("most", [2, 7, 15, 16, 17, 40, 79, 128, 129, 1000])
def test_the_largest_batch_of_each_kind(most: int) -> None:
    assert largest_of_each(most) == {filling_of(batch): batch for batch in range(2, most + 1)}
