"""Exported training steps: the same bits as steps in Python, from the same state, with the same draws."""
from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native.tools import tool
from safetensors.numpy import load_file, save_file

import torturous as torch
from torturous import Tensor, native, nn
from torturous.core.errors import UnsupportedError
from torturous.native.recording import _ratio
from torturous.nn import functional as F
from torturous.tensor.generator import default_generator

TARGET = "avx2"
FLAGS = ["-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-pthread"]


class Small(nn.Module):
    """Convolution, running statistics, both kinds of dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout2d(0.25)
        self.linear = nn.Linear(4 * 9, 5)
        self.frozen = nn.Parameter(torch.ones(5), requires_grad=False)

    def forward(self, image: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.conv(image))), 2)
        x = F.dropout(self.drop(x).flatten(1), 0.1, self.training)
        return F.log_softmax(self.linear(x) * self.frozen, dim=1)


def example(batch: int = 6, seed: int = 3) -> tuple[Tensor, Tensor]:
    random = np.random.default_rng(seed)
    return (torch.tensor(random.standard_normal((batch, 1, 8, 8)).astype(np.float32)),
            torch.tensor(random.integers(0, 5, batch)))


def small() -> Small:
    torch.manual_seed(11)
    return Small()


Make = Callable[[Any], Any]
OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.1),
    "momentum": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, dampening=0.1, weight_decay=0.01),
    "adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.01),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=0.01, amsgrad=True),
    "rmsprop": lambda m: torch.optim.RMSprop(m.parameters(), lr=0.01, momentum=0.5, centered=True),
    "adagrad": lambda m: torch.optim.Adagrad(m.parameters(), lr=0.01, lr_decay=0.1, initial_accumulator_value=0.5),
    "adamax": lambda m: torch.optim.Adamax(m.parameters(), lr=0.01),
    "radam": lambda m: torch.optim.RAdam(m.parameters(), lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
    "nadam": lambda m: torch.optim.NAdam(m.parameters(), lr=0.01),
    "asgd": lambda m: torch.optim.ASGD(m.parameters(), lr=0.1, lambd=0.01, t0=4),
    "adadelta": lambda m: torch.optim.Adadelta(m.parameters(), lr=0.5),
    "rprop": lambda m: torch.optim.Rprop(m.parameters(), lr=0.01),
    "groups": lambda m: torch.optim.SGD(
        [{"params": m.conv.parameters()}, {"params": [m.linear.weight], "lr": 0.5}], lr=0.1, momentum=0.9,
        nesterov=True),
}


def export(model: Any, optimizer: Any, folder: Path, **options: Any) -> native.Bundle:
    options = {"target": TARGET, "shared": False, "max_batch": 8, **options}
    return native.export_training(model, F.nll_loss, optimizer, example(), folder, **options)


def build(folder: Path, source: str | Path, *options: str) -> Path:
    compiler = tool("cc")
    program = folder / "program"
    if isinstance(source, str):
        (folder / "program.c").write_text(source)
        source = folder / "program.c"
    subprocess.run([compiler, *FLAGS, source, f"-I{folder}", folder / "libnet.a", "-o", program, *options], check=True)
    return program


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_python(name: str, tmp_path: Path) -> None:
    """The self-test makes three steps, of which one is gradients and update apart, and reads what it exported."""
    model = small()
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    export(model, OPTIMIZERS[name](model), tmp_path)
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key], err_msg=f"the export changed {key}")
    program = build(tmp_path, tmp_path / "net_selftest.c")
    ran = subprocess.run([program, tmp_path / "net.safetensors"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "net: as in Python\n")


def test_fixed_shapes(tmp_path: Path) -> None:
    """Without a batch, the functions take 1 for it."""
    model = small()
    export(model, OPTIMIZERS["sgd"](model), tmp_path, max_batch=None)
    ran = subprocess.run([build(tmp_path, tmp_path / "net_selftest.c"), tmp_path / "net.safetensors"],
                         capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "net: as in Python\n")


@pytest.mark.parametrize("name", ["momentum", "adam", "adagrad", "nadam", "radam", "asgd"])
def test_going_on_where_python_stopped(name: str, tmp_path: Path) -> None:
    """Moments, the count of steps and the generator's state go along. RAdam's fifth step is another than its sixth,
    and ASGD averages from its sixth on."""
    model = small()
    optimizer = OPTIMIZERS[name](model)
    train(model, optimizer, 4)
    export(model, optimizer, tmp_path)
    program = build(tmp_path, DRIVER)
    for batch in (1, 8):
        arguments = ["-1", "0.05", tmp_path / "after", *files(tmp_path, batch)]
        subprocess.run([program, tmp_path / "net.safetensors", *arguments], check=True)
    train_twin = load_file(tmp_path / "after")
    state = default_generator.get_state()
    # The second of the two runs above began anew from the exported file.
    train(model, optimizer, 3, example(8, seed=8), 0.05)
    default_generator.set_state(state)
    for key, value in model.state_dict().items():
        assert train_twin[key].tobytes() == value.numpy().tobytes(), key


def train(model: Any, optimizer: Any, steps: int, data: tuple[Tensor, Tensor] | None = None, rate: float | None = None
          ) -> None:
    image, target = data or example()
    for _ in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate or group["lr"]
        optimizer.zero_grad()
        F.nll_loss(model(image), target).backward()
        optimizer.step()


def files(folder: Path, batch: int) -> list[str]:
    image, target = example(batch, seed=batch)
    (folder / "image").write_bytes(image.numpy().tobytes())
    (folder / "target").write_bytes(target.numpy().tobytes())
    return [str(batch), str(folder / "image"), str(folder / "target")]


# program weights seed rate result batch image target: three steps, on two pools and serially, from the same state.
DRIVER = """
#include "net.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Alignas(64) unsigned char states[3][NET_STATE_BYTES], space[NET_WORKSPACE_BYTES(NET_MAX_BATCH, 3)];
static unsigned char file[NET_FILE_BYTES], other[NET_FILE_BYTES];

static void *read_all(const char *path, size_t *bytes) {
    FILE *stream = fopen(path, "rb");
    char *content = malloc(1 << 20);
    if (stream == NULL || content == NULL) exit(2);
    *bytes = fread(content, 1, 1 << 20, stream);
    fclose(stream);
    return content;
}

struct share { int64_t next, pieces; void (*body)(void *, int64_t, int64_t); void *context; };
struct thread { struct share *share; int64_t worker; };
static void *work(void *argument) {
    struct thread *thread = argument;
    for (;;) {
        int64_t piece = __atomic_fetch_add(&thread->share->next, 1, __ATOMIC_RELAXED);
        if (piece >= thread->share->pieces) return NULL;
        thread->share->body(thread->share->context, piece, thread->worker);
    }
}
static void threaded(void *pool, int64_t pieces, void (*body)(void *, int64_t, int64_t), void *context) {
    (void)pool;
    struct share share = {0, pieces, body, context};
    struct thread threads[3];
    pthread_t handles[3];
    for (int k = 0; k < 3; k++) {
        threads[k] = (struct thread){&share, k};
        if (pthread_create(&handles[k], NULL, work, &threads[k]) != 0) exit(2);
    }
    for (int k = 0; k < 3; k++) pthread_join(handles[k], NULL);
}
static void in_order(void *pool, int64_t pieces, void (*body)(void *, int64_t, int64_t), void *context) {
    (void)pool;
    for (int64_t piece = 0; piece < pieces; piece++) body(context, piece, 0);
}

int main(int count, char **arguments) {
    if (count != 8) return 2;
    size_t bytes, image_bytes, target_bytes;
    void *weights = read_all(arguments[1], &bytes);
    int64_t seed = atoll(arguments[2]), batch = atoll(arguments[5]);
    double rate = atof(arguments[3]);
    float *image = read_all(arguments[6], &image_bytes), loss[3];
    int64_t *target = read_all(arguments[7], &target_bytes);
    for (int k = 0; k < 3; k++) {
        int code = net_state_init(states[k], NET_STATE_BYTES, weights, bytes, seed);
        for (int step = 0; step < 3 && code == NET_OK; step++) {
            if (k == 0) code = net_step(states[k], image, target, loss, rate, batch, space, sizeof space);
            else code = net_step_parallel(states[k], image, target, loss + k, rate, batch, 3, space, sizeof space,
                                          k == 1 ? in_order : threaded, NULL);
        }
        if (code != NET_OK) { puts(net_strerror(code)); return 1; }
        if (net_state_export(states[k], k ? other : file, NET_FILE_BYTES) != NET_OK) return 1;
        if (k && memcmp(file, other, NET_FILE_BYTES) != 0) { puts("a pool trains differently"); return 1; }
        if (loss[0] != loss[k]) { puts("a pool has another loss"); return 1; }
    }
    FILE *result = fopen(arguments[4], "wb");
    return result == NULL || fwrite(file, 1, NET_FILE_BYTES, result) != NET_FILE_BYTES;
}
"""


def test_a_seed_gives_the_draws_of_manual_seed(tmp_path: Path) -> None:
    model = small()
    optimizer = OPTIMIZERS["adam"](model)
    export(model, optimizer, tmp_path, batches=(6,))
    program = build(tmp_path, DRIVER)
    # Weights alone, as a state dict has them, are enough: moments begin as zeros.
    save_file({key: value.numpy() for key, value in model.state_dict().items()}, tmp_path / "weights")
    # A batch of 6 has a plan of its own.
    for seed, batch in ((0, 6), (5, 8), ((1 << 40) + 5, 6)):
        arguments = [str(seed), "0.02", tmp_path / "after", *files(tmp_path, batch)]
        ran = subprocess.run([program, tmp_path / "weights", *arguments], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout
        after = load_file(tmp_path / "after")
        twin = small()
        twin_optimizer = OPTIMIZERS["adam"](twin)
        torch.manual_seed(seed)
        train(twin, twin_optimizer, 3, example(batch, seed=batch), 0.02)
        for key, value in twin.state_dict().items():
            assert after[key].tobytes() == value.numpy().tobytes(), key
        assert after["torturous.step"] == 3
        # And Python goes on from what the library exported.
        twin.load_state_dict({key: torch.tensor(after[key]) for key in twin.state_dict()})


CALLS = """
#include "net.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;
#define EXPECT(call, code) do { int found = (call); if (found != (code)) { failures++; \\
    printf("%s gave %d (%s)\\n", #call, found, net_strerror(found)); } } while (0)
static _Alignas(64) unsigned char state[NET_STATE_BYTES + 64], copy[NET_STATE_BYTES];
static _Alignas(64) unsigned char space[NET_WORKSPACE_BYTES(NET_MAX_BATCH, 1)], file[1 << 16], out[NET_FILE_BYTES];
static float image[NET_MAX_BATCH * 64], loss[1];
static _Alignas(8) char gradients[NET_GRADIENT_BYTES];
static int64_t target[NET_MAX_BATCH];

int main(int count, char **arguments) {
    FILE *stream = fopen(arguments[count - 1], "rb");
    size_t bytes = fread(file, 1, sizeof file, stream), need = sizeof space;
    EXPECT(net_state_bytes() == NET_STATE_BYTES, 1);
    EXPECT(net_workspace_bytes(NET_MAX_BATCH, 1) == sizeof space, 1);
    EXPECT(net_workspace_bytes(NET_MAX_BATCH + 1, 1) != 0, 0);
    EXPECT(net_state_init(NULL, NET_STATE_BYTES, file, bytes, 1), NET_ENULL);
    EXPECT(net_state_init(state, NET_STATE_BYTES, NULL, bytes, 1), NET_ENULL);
    EXPECT(net_state_init(state + 4, NET_STATE_BYTES, file, bytes, 1), NET_EALIGN);
    EXPECT(net_state_init(state, NET_STATE_BYTES - 1, file, bytes, 1), NET_ESIZE);
    for (size_t length = 0; length < bytes; length += 7)
        EXPECT(net_state_init(state, NET_STATE_BYTES, file, length, 1), NET_EWEIGHTS);
    EXPECT(net_step(state, image, target, loss, 0.1, 1, space, need), NET_EWEIGHTS);
    EXPECT(net_state_init(state, NET_STATE_BYTES, file, bytes, 1), NET_OK);
    EXPECT(net_step(state, image, target, loss, 0.1, 0, space, need), NET_EBATCH);
    EXPECT(net_step(state, image, target, loss, 0.1, NET_MAX_BATCH + 1, space, need), NET_EBATCH);
    EXPECT(net_step(state, image, NULL, loss, 0.1, 1, space, need), NET_ENULL);
    EXPECT(net_step(state, image, target, loss, 0.1, NET_MAX_BATCH, space, need - 1), NET_ESIZE);
    EXPECT(net_grad(state, image, target, loss, NULL, 1, space, need), NET_ENULL);
    EXPECT(net_grad(state, image, target, loss, gradients + 1, 1, space, need), NET_EALIGN);
    EXPECT(net_apply(state, gradients, 0.1, space, NET_WORKSPACE_BYTES(1, 1) - 1), NET_ESIZE);
    EXPECT(net_state_export(state, out, NET_FILE_BYTES - 1), NET_ESIZE);
    /* A target out of range: nothing has changed, not even the generator. */
    memcpy(copy, state, sizeof copy);
    target[1] = 5;
    EXPECT(net_step(state, image, target, loss, 0.1, 2, space, need), NET_EINDEX);
    EXPECT(net_grad(state, image, target, loss, gradients, 2, space, need), NET_EINDEX);
    EXPECT(memcmp(copy, state, sizeof copy), 0);
    target[1] = 4;
    EXPECT(net_step(state, image, target, loss, 0.1, 2, space, need), NET_OK);
    EXPECT(isfinite(loss[0]) && memcmp(copy, state, sizeof copy) != 0, 1);
    for (size_t byte = 0; byte < 48; byte++) {
        state[byte] ^= 4;
        EXPECT(net_step(state, image, target, loss, 0.1, 1, space, need), NET_EWEIGHTS);
        EXPECT(net_state_export(state, out, NET_FILE_BYTES), NET_EWEIGHTS);
        state[byte] ^= 4;
    }
    return failures != 0;
}
"""


def test_whatever_is_wrong_gives_an_error_code(tmp_path: Path) -> None:
    model = small()
    export(model, OPTIMIZERS["momentum"](model), tmp_path)
    program = build(tmp_path, CALLS, "-fsanitize=undefined", "-fno-sanitize-recover=all")
    ran = subprocess.run([program, tmp_path / "net.safetensors"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_nothing_in_python_changes(tmp_path: Path) -> None:
    """The optimizer's state, gradients, the generator."""
    model = small()
    optimizer = OPTIMIZERS["adam"](model)
    train(model, optimizer, 1)
    state = default_generator.get_state().numpy().copy()
    gradient = model.linear.weight.grad
    kept = optimizer.state_dict()["state"][1]["exp_avg"].numpy().copy()
    export(model, optimizer, tmp_path)
    assert model.linear.weight.grad is gradient
    np.testing.assert_array_equal(default_generator.get_state().numpy(), state)
    np.testing.assert_array_equal(optimizer.state_dict()["state"][1]["exp_avg"].numpy(), kept)
    assert optimizer.state_dict()["state"][1]["step"] == 1


def test_the_classic_step_is_small(tmp_path: Path) -> None:
    """The MNIST net's, for any batch, with what single samples and many are best computed by."""
    model = nn.Sequential(
        nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2),
        nn.ReLU(), nn.Flatten(), nn.Linear(320, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 10), nn.LogSoftmax(1))
    data = torch.zeros(64, 1, 28, 28), torch.zeros(64, dtype=torch.int64)
    native.export_training(model, F.nll_loss, torch.optim.SGD(model.parameters(), lr=0.1), data, tmp_path,
                           target="avx512", shared=False, size_budget=150_000)


def test_refusals(tmp_path: Path) -> None:
    class Mine(torch.optim.Optimizer):
        def step(self, closure: Any = None) -> None:
            pass

    model = small()
    with pytest.raises(UnsupportedError, match="step of Mine"):
        export(model, Mine(model.parameters(), {}), tmp_path)
    hooked = OPTIMIZERS["sgd"](model)
    hooked.register_step_pre_hook(lambda *_: None)
    with pytest.raises(UnsupportedError, match="hooks"):
        export(model, hooked, tmp_path)
    with pytest.raises(ValueError, match="not one of the model's"):
        export(model, OPTIMIZERS["sgd"](small()), tmp_path)
    sgd = OPTIMIZERS["sgd"](model)
    with pytest.raises(TypeError, match="target"):
        native.export_training(model, F.nll_loss, sgd, example()[:1], tmp_path)
    with pytest.raises(TypeError, match="one number"):
        native.export_training(model, lambda x, y: x, sgd, example(), tmp_path)
    with pytest.raises(UnsupportedError, match=r"value at .*test_training\.py:\d+"):
        native.export_training(model, lambda x, y: x.sum() * float(x.max()), sgd, example(), tmp_path)

    class Rounded(torch.optim.SGD):
        def _update(self, group: Any, *rest: Any) -> None:
            super()._update({**group, "lr": round(group["lr"], 3)}, *rest)

    class Masked(torch.optim.SGD):
        def _update(self, group: Any, *rest: Any) -> None:
            super()._update({**group, "lr": float(group["lr"])}, *rest)

    for optimizer in (Rounded, Masked):
        with pytest.raises(UnsupportedError, match="more than arithmetic and comparisons"):
            export(model, optimizer(model.parameters()), tmp_path)
    with pytest.raises(native.SizeBudgetError, match="size_budget allows 1000"):
        export(model, sgd, tmp_path, size_budget=1000)


@pytest.mark.parametrize("function", [
    lambda n: 1 / n, lambda n: n / (n - 1), lambda n: 0.1 * (36 * n / (36 * n - 1)), lambda n: 1 / (7 * n + 3),
    lambda n: 0.003 * (n / (n - 1)), lambda n: 3.0 * n])
def test_numbers_that_are_quotients(function: Callable[[int], float]) -> None:
    """What fits at four batches to the last bit fits at all others."""
    batches = [2, 3, 5, 256]
    ratio = _ratio(batches, [function(n) for n in batches])
    assert ratio is not None
    for n in range(2, 1000):
        assert ratio.at(n) == function(n)


def test_numbers_that_are_not() -> None:
    batches = [2, 3, 5, 256]
    for function in (lambda n: n ** 0.5, lambda n: 1 / n ** 2, lambda n: 0.1 + n % 3):
        assert _ratio(batches, [function(n) for n in batches]) is None
