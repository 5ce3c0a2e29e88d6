"""Exported libraries, linked into C programs: the same bits as in Python, an error code for what is wrong."""
from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native.tools import tool
from safetensors.numpy import load_file

import torturous as torch
from torturous import native, nn
from torturous.codegen.objectfile import ALLOWED, code_bytes, defined_symbols, undefined_symbols
from torturous.codegen.target import X86_LEVELS, host_target
from torturous.core import dtypes
from torturous.core.errors import UnsupportedError
from torturous.ir import elementwise, indexing, reduction
from torturous.ir.macros import LOG_SOFTMAX, MAX_POOL
from torturous.ir.op import Type
from torturous.native.recording import record_program
from torturous.tensor.applying import apply, apply_typed
from torturous.tensor.linear import convolution, linear, matmul
from torturous.tensor.recording import binary, unary
from torturous.tensor.tensor import Tensor, from_array

COMPILER = shutil.which("cc")
needs_compiler = pytest.mark.skipif(
    COMPILER is None and not os.environ.get("TORTUROUS_ALL_TOOLS"), reason="needs a C compiler named cc")
HARNESS = Path(__file__).with_name("harness.c")
BATCHES = (1, 7, 37)


class Model:
    """A module as the exporter sees one: named tensors, and a forward."""

    training = False

    def __init__(self, forward: Callable[..., Any], shapes: dict[str, tuple[int, ...]] | None = None,
                 dtype: dtypes.DType = dtypes.float32, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.tensors = {
            name: from_array((random.standard_normal(shape) * 0.3).astype(dtype.numpy))
            for name, shape in (shapes or {}).items()
        }
        self._forward = forward

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        return list(self.tensors.items())

    def forward(self, *inputs: Tensor) -> Any:
        weights = {name.replace(".", "_"): tensor for name, tensor in self.tensors.items()}
        return self._forward(*inputs, **weights)

    __call__ = forward


def relu(x: Tensor) -> Tensor:
    return unary(elementwise.RELU, x)


def tanh(x: Tensor) -> Tensor:
    return unary(elementwise.TANH, x)


def pool(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return apply_typed(MAX_POOL, (n, c, h // 2, w // 2), x.dtype, x,
                       attributes=((2, 2), (2, 2), (0, 0), (1, 1)))


# Models -----------------------------------------------------------------------------------------------------
def mnist(seed: int = 0) -> tuple[Model, list[Any]]:
    """The classic net, of recorded operations."""

    def forward(x: Tensor, conv1_weight: Tensor, conv1_bias: Tensor, conv2_weight: Tensor, conv2_bias: Tensor,
                fc1_weight: Tensor, fc1_bias: Tensor, fc2_weight: Tensor, fc2_bias: Tensor) -> Tensor:
        x = relu(pool(convolution(x, conv1_weight, conv1_bias, 1, 0, 1, 1, 2)))
        x = relu(pool(convolution(x, conv2_weight, conv2_bias, 1, 0, 1, 1, 2)))
        x = relu(linear(x.view(-1, 320), fc1_weight, fc1_bias))
        return apply(LOG_SOFTMAX, linear(x, fc2_weight, fc2_bias), attributes=(1,))

    shapes = {"conv1.weight": (10, 1, 5, 5), "conv1.bias": (10,), "conv2.weight": (20, 10, 5, 5),
              "conv2.bias": (20,), "fc1.weight": (50, 320), "fc1.bias": (50,), "fc2.weight": (10, 50),
              "fc2.bias": (10,)}
    return Model(forward, shapes, seed=seed), [((1, 28, 28), dtypes.float32)]


def padded() -> tuple[Model, list[Any]]:
    """Convolutions with borders and steps, of which one adds to what another gave."""

    def forward(x: Tensor, first: Tensor, second: Tensor, third: Tensor, fourth: Tensor) -> Tensor:
        x = relu(convolution(x, first, None, 2, 1, 1, 1, 2))
        x = x + relu(convolution(x, second, None, 1, 1, 1, 1, 2))
        x = convolution(x, third, None, 2, 0, 1, 1, 2)
        return convolution(x, fourth, None, 1, 2, 2, 1, 2).sum((2, 3))

    shapes = {"first": (6, 2, 3, 3), "second": (6, 6, 3, 3), "third": (9, 6, 1, 1), "fourth": (4, 9, 3, 3)}
    return Model(forward, shapes), [((2, 11, 9), dtypes.float32)]


def perceptron(seed: int, dtype: dtypes.DType) -> tuple[Model, list[Any]]:
    """Layers of random odd widths."""
    random = np.random.default_rng(seed)
    widths = [int(width) for width in random.integers(1, 70, 4)]
    shapes = {}
    for number, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        shapes[f"w{number}"] = (after, before)
        shapes[f"b{number}"] = (after,)

    def forward(x: Tensor, **weights: Tensor) -> Tensor:
        for number in range(len(weights) // 2):
            x = linear(x, weights[f"w{number}"], weights[f"b{number}"])
            x = tanh(x) if number % 2 else relu(x) * 0.5 + 0.1
        return x

    return Model(forward, shapes, dtype, seed), [((widths[0],), dtype)]


def across_the_batch() -> tuple[Model, list[Any]]:
    """Sums over the batch, a number that is the batch, and sizes that are multiples of it."""

    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        batch = x.shape[0]
        centred = x - x.sum(0) / batch
        pairs = centred.view(batch * 3, 4)
        shifted = pairs[1:] * (2.0 * batch + 1)
        return centred, shifted, matmul(y, x.view(batch, 1, 12)), x, x.sum(), y[:, 1:] + batch

    return Model(forward), [((12,), dtypes.float32), ((5, 1), dtypes.float32)]


def lookup() -> tuple[Model, list[Any]]:
    """Rows of a table; the largest of each, and where it is."""

    def forward(index: Tensor, table: Tensor) -> tuple[Tensor, ...]:
        rows = apply_typed(indexing.TAKE, (*index.shape, 6), table.dtype, table, index, attributes=(0,))
        best = apply(reduction.ARGMAX, rows, attributes=((2,), False))
        return rows.amax(2), best, binary(elementwise.GT, rows, 0.1)

    return Model(forward, {"table": (9, 6)}), [((4,), dtypes.int64)]


def constants() -> tuple[Model, list[Any]]:
    """A tensor that is not the module's, and one that forward makes."""
    outside = from_array(np.arange(6, dtype=np.float32))

    def forward(x: Tensor, scale: Tensor) -> Tensor:
        return x * scale + outside * from_array(np.full(6, 0.25, np.float32))

    return Model(forward, {"scale": (6,)}), [((6,), dtypes.float32)]


def inplace() -> tuple[Model, list[Any]]:
    """In place on what forward made, and on its input."""

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        y = linear(x, weight)
        y.mul_(0.5)
        y[:, 2] = 7.0
        return y

    return Model(forward, {"weight": (5, 33)}), [((33,), dtypes.float32)]


MODELS: dict[str, Callable[[], tuple[Model, list[Any]]]] = {
    "mnist": mnist, "padded": padded, "across the batch": across_the_batch, "lookup": lookup, "constants": constants,
    "in place": inplace,
    **{f"perceptron {seed}": (lambda seed=seed: perceptron(seed, dtypes.float32)) for seed in range(3)},
    **{f"perceptron {dtype.name}": (lambda dtype=dtype: perceptron(11, dtype))
       for dtype in (dtypes.float64, dtypes.float16, dtypes.bfloat16)},
}


def make_inputs(kinds: Sequence[Any], batch: int, seed: int = 1) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [
        random.integers(0, 9, (batch, *shape)).astype(dtype.numpy) if not dtype.is_floating_point
        else random.standard_normal((batch, *shape)).astype(dtype.numpy)
        for shape, dtype in kinds
    ]


def results(model: Model, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    outputs = model(*map(from_array, inputs))
    return [array(output) for output in (outputs if isinstance(outputs, tuple) else [outputs])]


def array(x: Tensor) -> np.ndarray:
    """The elements of a tensor; `numpy()` refuses bfloat16, as PyTorch's does."""
    if x.dtype is not dtypes.bfloat16:
        return x.numpy()
    x._realized()
    assert x.base is None and x.storage.buffer is not None
    return x.storage.buffer.array(x.dtype.numpy, tuple(x.shape))


# Building and running ---------------------------------------------------------------------------------------
def build(bundle: native.Bundle, count: int, source: Path = HARNESS, *options: str) -> Path:
    folder, name = bundle.directory, bundle.name
    program = folder / "program"
    pointers = ", ".join(f"p[{index}]" for index in range(count))
    subprocess.run(
        [COMPILER, "-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-pthread", f"-DNAME={name}",
         f"-DUPPER={name.upper()}", f'-DHEADER="{name}.h"', f"-DPOINTERS={pointers}", f"-I{folder}", source,
         folder / f"lib{name}.a", "-o", program, *options],
        check=True)
    return program


def run(program: Path, bundle: native.Bundle, batch: int, inputs: Sequence[np.ndarray],
        like: Sequence[np.ndarray]) -> list[np.ndarray]:
    folder = bundle.directory
    files = [folder / f"input{index}" for index in range(len(inputs))]
    written = [folder / f"output{index}" for index in range(len(like))]
    for file, array in zip(files, inputs, strict=True):
        file.write_bytes(array.tobytes())
    lengths = [str(array.nbytes) for array in like]
    ran = subprocess.run(
        [program, folder / f"{bundle.name}.safetensors", str(workspace_bytes(bundle, batch)), str(batch),
         *lengths, "--", *files, "--", *written], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr or ran.returncode
    return [
        np.frombuffer(file.read_bytes(), array.dtype).reshape(array.shape)
        for file, array in zip(written, like, strict=True)
    ]


def workspace_bytes(bundle: native.Bundle, batch: int) -> int:
    described = json.loads((bundle.directory / f"{bundle.name}.json").read_text())["workspace_bytes"]
    return described[str(batch)]


def export(model: Any, kinds: Sequence[Any], folder: Path, batch: int = 7, **options: Any) -> native.Bundle:
    examples = tuple(map(from_array, make_inputs(kinds, batch)))
    return native.export(model, examples, folder, **options)


@needs_compiler
@pytest.mark.parametrize("name", MODELS)
def test_same_bits_at_every_batch(name: str, tmp_path: Path) -> None:
    model, kinds = MODELS[name]()
    bundle = export(model, kinds, tmp_path, batch=7, max_batch=37)
    for batch in BATCHES:
        inputs = make_inputs(kinds, batch, seed=batch)
        expected = results(model, inputs)
        program = build(bundle, len(inputs) + len(expected))
        got = run(program, bundle, batch, inputs, expected)
        for index, (mine, theirs) in enumerate(zip(got, expected, strict=True)):
            assert mine.tobytes() == theirs.tobytes(), f"output {index} at batch {batch}"


@needs_compiler
@pytest.mark.parametrize("level", ["sse2", "avx2", "avx512"])
def test_one_instruction_set(level: str, tmp_path: Path) -> None:
    """The same bits on each; one that this machine lacks is refused when weights are prepared."""
    model, kinds = mnist()
    bundle = export(model, kinds, tmp_path, max_batch=7, target=level)
    assert bundle.targets == (level,)
    inputs = make_inputs(kinds, 7)
    program = build(bundle, 2)
    expected = results(model, inputs)
    if level not in levels_here():
        with pytest.raises(AssertionError, match="lacks the instructions"):
            run(program, bundle, 7, inputs, expected)
        return
    (got,) = run(program, bundle, 7, inputs, expected)
    assert got.tobytes() == expected[0].tobytes()


def levels_here() -> list[str]:
    """The levels that this machine has."""
    found = []
    for level in X86_LEVELS:
        try:
            found.append(host_target(level).name)
        except ValueError:
            pass
    return found


@needs_compiler
def test_a_library_for_every_processor_chooses_when_it_prepares(tmp_path: Path) -> None:
    """On an emulated processor without AVX2 it takes SSE2, and computes the same."""
    model, kinds = mnist()
    bundle = export(model, kinds, tmp_path, max_batch=7)
    assert bundle.targets == ("avx512", "avx2", "sse2")
    source = tmp_path / "which.c"
    source.write_text("""
        #include "net.h"
        #include <stdio.h>
        static _Alignas(64) unsigned char prepared[NET_PREPARED_BYTES], file[1 << 20];
        int main(int count, char **arguments) {
            FILE *stream = fopen(arguments[count - 1], "rb");
            size_t bytes = fread(file, 1, sizeof file, stream);
            int code = net_prepare(file, bytes, prepared, sizeof prepared);
            printf("%d %d", code, (int)*(int64_t *)(void *)(prepared + 40));
            return 0;
        }""")
    program = tmp_path / "which"
    subprocess.run([COMPILER, "-static", source, tmp_path / "libnet.a", "-o", program], check=True)
    ran = subprocess.run([program, tmp_path / "net.safetensors"], capture_output=True, text=True, check=True)
    assert ran.stdout == f"0 {list(bundle.targets).index(levels_here()[0])}"
    emulator = tool("qemu-x86_64")
    for model_name, chosen in (("qemu64", 2), ("Haswell-noTSX", 1)):
        ran = subprocess.run([emulator, "-cpu", model_name, program, tmp_path / "net.safetensors"],
                             capture_output=True, text=True, check=True)
        assert ran.stdout == f"0 {chosen}", model_name


@needs_compiler
def test_the_mnist_net_as_users_write_it(tmp_path: Path) -> None:
    F = pytest.importorskip("torturous.nn.functional", exc_type=ImportError)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
            self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
            self.conv2_drop = nn.Dropout2d()
            self.fc1 = nn.Linear(320, 50)
            self.fc2 = nn.Linear(50, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(F.max_pool2d(self.conv1(x), 2))
            x = F.relu(F.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
            x = F.relu(self.fc1(x.view(-1, 320)))
            x = F.dropout(x, training=self.training)
            return F.log_softmax(self.fc2(x), dim=1)

    model = Net().eval()
    for batch in BATCHES:
        inputs = make_inputs([((1, 28, 28), dtypes.float32)], batch, seed=batch)
        expected = [model(from_array(inputs[0])).detach().numpy()]
        bundle = native.export(model, (from_array(inputs[0]),), tmp_path, max_batch=64)
        program = build(bundle, 2)
        (got,) = run(program, bundle, batch, inputs, expected)
        assert got.tobytes() == expected[0].tobytes(), f"batch {batch}"
    assert set(load_file(tmp_path / "net.safetensors")) == set(model.state_dict())
    described = json.loads((tmp_path / "net.json").read_text())
    assert described["inputs"][0]["name"] == "x"


# The interface ----------------------------------------------------------------------------------------------
CALLS = """
#include "net.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures = 0;
#define EXPECT(call, code) do { int found = (call); if (found != (code)) { failures++; \\
    printf("%s gave %d (%s)\\n", #call, found, net_strerror(found)); } } while (0)

static void all(void *pool, int64_t pieces, void (*body)(void *, int64_t, int64_t), void *context) {
    (void)pool;
    for (int64_t piece = 0; piece < pieces; piece++) body(context, piece, 0);
}
static void but_one(void *pool, int64_t pieces, void (*body)(void *, int64_t, int64_t), void *context) {
    all(pool, pieces - 1, body, context);
}
static void once_more(void *pool, int64_t pieces, void (*body)(void *, int64_t, int64_t), void *context) {
    all(pool, pieces + 1, body, context);
}
static void stranger(void *pool, int64_t pieces, void (*body)(void *, int64_t, int64_t), void *context) {
    (void)pool;
    for (int64_t piece = 0; piece < pieces; piece++) body(context, piece, piece ? 0 : 2);
}

int main(int count, char **arguments) {
    static _Alignas(64) unsigned char file[1 << 16], prepared[NET_PREPARED_BYTES + 64];
    static _Alignas(64) int64_t index[4 * NET_MAX_BATCH];
    static float best[4 * NET_MAX_BATCH];
    static int64_t where[4 * NET_MAX_BATCH];
    static uint8_t above[24 * NET_MAX_BATCH];
    static _Alignas(64) char space[NET_WORKSPACE_BYTES(NET_MAX_BATCH, 2) + 64];
    FILE *stream = fopen(arguments[count - 1], "rb");
    if (stream == NULL) return 2;
    size_t bytes = fread(file, 1, sizeof file, stream);
    size_t need = net_workspace_bytes(NET_MAX_BATCH, 1);
    EXPECT(need != NET_WORKSPACE_BYTES(NET_MAX_BATCH, 1), 0);
    for (int64_t bad = -1; bad < 2; bad++) {
        EXPECT(net_workspace_bytes(bad == 1 ? NET_MAX_BATCH + 1 : bad, 1) != 0, 0);
        EXPECT(net_workspace_bytes(1, bad == 1 ? NET_MAX_WORKERS + 1 : bad) != 0, 0);
    }
    EXPECT(net_prepare(NULL, bytes, prepared, sizeof prepared), NET_ENULL);
    EXPECT(net_prepare(file, bytes, NULL, sizeof prepared), NET_ENULL);
    EXPECT(net_prepare(file, bytes, prepared + 8, sizeof prepared), NET_EALIGN);
    EXPECT(net_prepare(file, bytes, prepared, NET_PREPARED_BYTES - 1), NET_ESIZE);
    for (size_t length = 0; length < bytes; length++)
        EXPECT(net_prepare(file, length, prepared, sizeof prepared), NET_EWEIGHTS);
    EXPECT(net_prepare(file, bytes, prepared, sizeof prepared), NET_OK);
    size_t header;
    memcpy(&header, file, 8);
    for (size_t byte = 8 + header; byte < bytes; byte++) {
        file[byte] ^= 1 << byte % 8;
        EXPECT(net_prepare(file, bytes, prepared, sizeof prepared), NET_EWEIGHTS);
        file[byte] ^= 1 << byte % 8;
    }
    memmove(file + 1, file, bytes);  /* The file may lie anywhere. */
    EXPECT(net_prepare(file + 1, bytes, prepared, NET_PREPARED_BYTES), NET_OK);
    unsigned char *workspace = (unsigned char *)space;
#define RUN(w, i, b, o, n, s, z) \\
    net_run(w, (const int64_t *)(const void *)(i), (float *)(void *)(b), o, above, n, s, z)
#define SHARE(workers, size, run) \\
    net_run_parallel(prepared, index, best, where, above, NET_MAX_BATCH, workers, space, size, run, NULL)
    EXPECT(RUN(prepared, index, best, where, NET_MAX_BATCH, workspace, need), NET_OK);
    EXPECT(RUN(NULL, index, best, where, 1, workspace, need), NET_ENULL);
    EXPECT(RUN(prepared, NULL, best, where, 1, workspace, need), NET_ENULL);
    EXPECT(RUN(prepared, index, NULL, where, 1, workspace, need), NET_ENULL);
    EXPECT(RUN(prepared, index, best, NULL, 1, workspace, need), NET_ENULL);
    EXPECT(RUN(prepared, index, best, where, 1, NULL, need), NET_ENULL);
    EXPECT(RUN(prepared + 32, index, best, where, 1, workspace, need), NET_EALIGN);
    EXPECT(RUN(prepared, (char *)index + 4, best, where, 1, workspace, need), NET_EALIGN);
    EXPECT(RUN(prepared, index, (char *)best + 2, where, 1, workspace, need), NET_EALIGN);
    EXPECT(RUN(prepared, index, best, where, 1, workspace + 8, need), NET_EALIGN);
    EXPECT(RUN(prepared, (char *)index + 8, (char *)best + 4, where, 1, workspace, need), NET_OK);
    EXPECT(RUN(prepared, index, best, where, 0, workspace, need), NET_EBATCH);
    EXPECT(RUN(prepared, index, best, where, INT64_MIN, workspace, need), NET_EBATCH);
    EXPECT(RUN(prepared, index, best, where, NET_MAX_BATCH + 1, workspace, need), NET_EBATCH);
    EXPECT(RUN(prepared, index, best, where, NET_MAX_BATCH, workspace, need - 1), NET_ESIZE);
    EXPECT(SHARE(2, sizeof space, all), NET_OK);
    EXPECT(SHARE(2, sizeof space, NULL), NET_ENULL);
    EXPECT(SHARE(0, sizeof space, all), NET_EWORKERS);
    EXPECT(SHARE(NET_MAX_WORKERS + 1, sizeof space, all), NET_EWORKERS);
    EXPECT(SHARE(NET_MAX_WORKERS, sizeof space, all), NET_WORKSPACE_BYTES(NET_MAX_BATCH, NET_MAX_WORKERS) >
           (int64_t)sizeof space ? NET_ESIZE : NET_OK);
    EXPECT(SHARE(1, sizeof space, all), NET_OK);
#ifdef SHARES
    EXPECT(SHARE(2, sizeof space, but_one), NET_EPOOL);
    EXPECT(SHARE(2, sizeof space, once_more), NET_EPOOL);
    EXPECT(SHARE(2, sizeof space, stranger), NET_EPOOL);
#else
    (void)but_one, (void)once_more, (void)stranger;
#endif
    for (int bad = 0; bad < 3; bad++) {
        index[5] = (int64_t[]){9, -1, INT64_MAX}[bad];
        EXPECT(RUN(prepared, index, best, where, 2, workspace, need), NET_EINDEX);
        EXPECT(RUN(prepared, index, best, where, 1, workspace, need), NET_OK);
        EXPECT(SHARE(2, sizeof space, all), NET_EINDEX);
    }
    index[5] = 8;
    EXPECT(RUN(prepared, index, best, where, 2, workspace, need), NET_OK);
    for (size_t byte = 0; byte < 48; byte++) {
        prepared[byte] ^= 4;
        EXPECT(RUN(prepared, index, best, where, 1, workspace, need), NET_EWEIGHTS);
        prepared[byte] ^= 4;
    }
    for (int code = -1; code < 11; code++) EXPECT(strlen(net_strerror(code)) < 5, 0);
    EXPECT(strcmp(net_strerror(-1), net_strerror(1000)), 0);
    const net_info *info = net_describe();
    EXPECT(info->abi == NET_ABI && info->max_batch == NET_MAX_BATCH && info->block_bytes == NET_PREPARED_BYTES, 1);
    EXPECT(info->inputs == 1 && info->outputs == 3, 1);
    EXPECT(strcmp(info->name, "net") == 0 && strcmp(info->targets, NET_TARGETS) == 0, 1);
    EXPECT(strlen(info->weights_sha256) == 64, 1);
    const net_value *input = info->input, *output = info->output;
    EXPECT(strcmp(input->dtype, "int64") == 0 && input->rank == 2 && input->shape[0] == -1 && input->shape[1] == 4, 1);
    EXPECT(strcmp(output->name, "output0") == 0 && strcmp(output[2].dtype, "bool") == 0, 1);
    EXPECT(strcmp(output[2].text, "[batch, 4, 6]") == 0, 1);
    return failures != 0;
}
"""


@needs_compiler
@pytest.mark.parametrize("max_batch", [5, 5000])
def test_whatever_is_wrong_gives_an_error_code(max_batch: int, tmp_path: Path) -> None:
    """At the larger batch there are pieces to share out, so that a pool can do it wrong."""
    bundle = export(*lookup(), tmp_path, max_batch=max_batch)
    source = tmp_path / "calls.c"
    source.write_text(CALLS)
    program = build(bundle, 0, source, "-fsanitize=undefined", "-fno-sanitize-recover=all",
                    *(["-DSHARES"] if max_batch > 1000 else []))
    ran = subprocess.run([program, tmp_path / "net.safetensors"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_compiler
def test_two_libraries_in_one_program(tmp_path: Path) -> None:
    """The same model under two names, and one C++ keyword in the argument's name, in one program."""
    def forward(new: Tensor, weight: Tensor) -> Tensor:
        return linear(new, weight)

    for name in ("first", "second"):
        model = Model(forward, {"weight": (3, 4)}, seed=len(name))
        model.forward = forward  # type: ignore[method-assign]  # named as its author did
        export(model, [((4,), dtypes.float32)], tmp_path, name=name, max_batch=2)
    assert re.search(r"const float \*new_,", (tmp_path / "first.h").read_text())
    source = tmp_path / "both.c"
    source.write_text("""
        #include "first.h"
        #include "second.h"
        int main(void) {
            static float x[8], y[6];
            static _Alignas(64) char workspace[1 << 20];
            int first = first_run(workspace, x, y, 2, workspace, sizeof workspace);
            int second = second_run(workspace, x, y, 3, workspace, sizeof workspace);
            return first == FIRST_EWEIGHTS && second == SECOND_EBATCH ? 0 : 1;
        }""")
    program = tmp_path / "both"
    libraries = [tmp_path / "libfirst.a", tmp_path / "libsecond.a"]
    subprocess.run([COMPILER, "-Wall", "-Werror", source, *libraries, "-o", program], check=True)
    assert subprocess.run([program]).returncode == 0


@needs_compiler
def test_only_the_interface_is_seen(tmp_path: Path) -> None:
    """Linked into a shared library, kernels stay inside, and nothing needs relocating in the text."""
    bundle = export(*mnist(), tmp_path)
    tool("nm")
    library = tmp_path / "net.so"
    subprocess.run(
        [COMPILER, "-shared", "-Wl,--whole-archive", tmp_path / "libnet.a", "-Wl,--no-whole-archive",
         "-Wl,-z,text", "-Wl,--fatal-warnings", "-o", library], check=True)
    listed = subprocess.check_output(["nm", "-D", "--defined-only", library], text=True)
    names = {line.split()[-1] for line in listed.splitlines()}
    assert names == {f"net_{function}" for function in (
        "run", "run_parallel", "prepare", "strerror", "workspace_bytes", "describe")}
    assert bundle.kernels > 0


def members(library: Path) -> list[bytes]:
    """The objects in an archive."""
    data, position, found = library.read_bytes(), 8, []
    while position < len(data):
        name, size = data[position:position + 16].strip(), int(data[position + 48:position + 58])
        if name != b"/":
            found.append(data[position + 60:position + 60 + size])
        position += 60 + size + size % 2
    return found


def test_symbols_and_size(tmp_path: Path) -> None:
    bundle = export(*mnist(), tmp_path, target="avx512")
    objects = members(tmp_path / "libnet.a")
    defined = set().union(*map(defined_symbols, objects))
    undefined = set().union(*map(undefined_symbols, objects))
    assert undefined - defined <= ALLOWED
    assert all(name.startswith("net_") for name in defined)
    assert sum(map(code_bytes, objects)) == bundle.code_bytes <= 60_000
    with pytest.raises(native.SizeBudgetError, match=f"takes {bundle.code_bytes} bytes"):
        export(*mnist(), tmp_path / "none", target="avx512", size_budget=bundle.code_bytes - 1)
    assert not (tmp_path / "none").exists()


def test_a_workspace_is_no_larger_than_the_layers_need(tmp_path: Path) -> None:
    """Where sizes are known, kernels' scratch memory is for these and not for the largest items that there may be."""
    model, kinds = mnist()
    bundle = export(model, kinds, tmp_path, batch=1, max_batch=None, target="avx2")
    assert workspace_bytes(bundle, 1) < 150_000


def test_nothing_can_change_but_what_is_passed(tmp_path: Path) -> None:
    """No object has a section that can be written at run time, or thread-local storage."""
    export(*mnist(), tmp_path, target="avx2")
    readelf = tool("readelf")
    for number, data in enumerate(members(tmp_path / "libnet.a")):
        (tmp_path / f"{number}.o").write_bytes(data)
        listed = subprocess.check_output([readelf, "-SW", tmp_path / f"{number}.o"], text=True)
        for line in listed.splitlines():
            fields = line.split("]")[-1].split()
            if len(fields) > 7 and "W" in fields[6] and int(fields[4], 16):
                assert fields[0].startswith(".data.rel.ro"), line
            assert "T" not in fields[6:7], line


def test_files(tmp_path: Path) -> None:
    """What the bundle says is so, and two exports are equal."""
    model, kinds = mnist()
    bundle = export(model, kinds, tmp_path / "a", shared=False)
    export(model, kinds, tmp_path / "b", shared=False)
    assert {path.name for path in bundle.files} == {
        "libnet.a", "net.h", "net.safetensors", "net.json", "net_selftest.c", "net.pc", "netConfig.cmake", "build.rs",
        "net.rs", "net.go", "net.py"}
    for path in bundle.files:
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    described = json.loads((tmp_path / "a" / "net.json").read_text())
    logical = load_file(tmp_path / "a" / "net.safetensors")
    assert set(logical) == set(model.tensors) == {weight["name"] for weight in described["weights"]}
    for weight in described["weights"]:
        tensor = model.tensors[weight["name"]].numpy()
        assert weight["offset"] is None or weight["offset"] % 64 == 0
        assert logical[weight["name"]].tobytes() == tensor.tobytes()
    for file, digest in described["sha256"].items():
        assert hashlib.sha256((tmp_path / "a" / file).read_bytes()).hexdigest() == digest
    assert described["inputs"] == [{"name": "input0", "dtype": "float32", "shape": ["batch", 1, 28, 28]}]
    assert described["outputs"] == [{"name": "output", "dtype": "float32", "shape": ["batch", 10]}]


@needs_compiler
@pytest.mark.parametrize("options", [
    {}, {"target": "avx2", "embed_weights": True}, {"max_batch": None}, {"batches": (3, 16)},
    {"max_batch": None, "target": "sse2", "embed_weights": True}], ids=str)
@pytest.mark.parametrize("name", ["mnist", "across the batch", "lookup"])
def test_the_self_test(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    model, kinds = MODELS[name]()
    bundle = export(model, kinds, tmp_path, batch=3, **options)
    program = tmp_path / "selftest"
    subprocess.run([COMPILER, "-Wall", "-Wextra", "-Werror", tmp_path / "net_selftest.c", tmp_path / "libnet.a", "-o",
                    program], check=True)
    files = [] if options.get("embed_weights") else [tmp_path / "net.safetensors"]
    ran = subprocess.run([program, *files], capture_output=True, text=True)
    if not set(bundle.targets) & set(levels_here()):
        assert "lacks the instructions" in ran.stdout
        return
    assert (ran.returncode, ran.stdout) == (0, "net: as in Python\n")


@needs_compiler
def test_plans_for_single_batches_give_the_same_bits(tmp_path: Path) -> None:
    model, kinds = mnist()
    for batch in (1, 16, 17):
        inputs = make_inputs(kinds, batch, seed=batch)
        bundle = export(model, kinds, tmp_path, batch=batch, batches=(1, 16), max_batch=20)
        program = build(bundle, 2)
        expected = results(model, inputs)
        (got,) = run(program, bundle, batch, inputs, expected)
        assert got.tobytes() == expected[0].tobytes()


def test_the_python_wrapper(tmp_path: Path) -> None:
    """It needs a linker when it is exported, and NumPy alone when it is used."""
    tool("ld", "ld.lld")
    model, kinds = across_the_batch()
    export(model, kinds, tmp_path, shared=True)
    inputs = make_inputs(kinds, 5)
    for position, array_ in enumerate(inputs):
        np.save(tmp_path / f"in{position}.npy", array_)
    script = ("import sys, numpy, net; assert 'torturous' not in sys.modules\n"
              "model = net.Model()\n"
              "for n, x in enumerate(model(numpy.load('in0.npy'), numpy.load('in1.npy'))): numpy.save(f'out{n}', x)\n"
              "try: model(numpy.zeros((2, 3)), numpy.zeros((2, 3)))\n"
              "except ValueError as error: print(error)")
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True,
                         env={**os.environ, "PYTHONPATH": ""})
    assert ran.returncode == 0, ran.stderr
    assert "must have shape (2, 12), got (2, 3)" in ran.stdout
    for position, expected in enumerate(results(model, inputs)):
        got = np.load(tmp_path / f"out{position}.npy")
        assert got.tobytes() == expected.tobytes()


@needs_compiler
def test_other_weights_of_the_same_shapes(tmp_path: Path) -> None:
    """A file that another tool has written, with its own order, metadata and more tensors, is as good as ours."""
    kinds = mnist()[1]
    bundle = export(mnist()[0], kinds, tmp_path, max_batch=7)
    other = mnist(seed=5)[0]
    program = build(bundle, 2)
    arrays = {name: tensor.numpy() for name, tensor in other.tensors.items()}
    (tmp_path / "net.safetensors").write_bytes(safe_file(arrays | {"more": np.arange(3, dtype=np.int8)}))
    inputs = make_inputs(kinds, 7)
    expected = results(other, inputs)
    (got,) = run(program, bundle, 7, inputs, expected)
    assert got.tobytes() == expected[0].tobytes()
    for broken in (
        {name: array_ for name, array_ in arrays.items() if name != "fc1.bias"},
        arrays | {"fc1.bias": np.zeros(51, np.float32)},
        arrays | {"fc1.bias": np.zeros((50, 1), np.float32)},
        arrays | {"fc1.bias": np.zeros(50, np.int32)},
    ):
        (tmp_path / "net.safetensors").write_bytes(safe_file(broken))
        with pytest.raises(AssertionError, match="damaged or belongs to another model"):
            run(program, bundle, 7, inputs, expected)


def safe_file(arrays: dict[str, np.ndarray]) -> bytes:
    """A safetensors file as one might write it by hand, with spaces, and tensors in no order."""
    kinds = {"f4": "F32", "i4": "I32", "i1": "I8"}
    header: dict[str, Any] = {"__metadata__": {"format": 'by "hand" \\', "other": ""}}
    content = b""
    for name in reversed(list(arrays)):
        data = arrays[name].tobytes()
        header[name] = {"data_offsets": [len(content), len(content) + len(data)], "shape": list(arrays[name].shape),
                        "dtype": kinds[arrays[name].dtype.str[1:]]}
        content += data
    text = json.dumps(header, indent=1).encode()
    return len(text).to_bytes(8, "little") + text + content


def test_examples_stay_as_they_are(tmp_path: Path) -> None:
    """A forward that writes to its input computes the golden outputs from a copy."""
    x = from_array(make_inputs(inplace()[1], 3)[0]).clone()
    before = x.numpy().copy()
    native.export(lambda x: x.mul_(2.0), (x,), tmp_path, target="avx2", shared=False)
    np.testing.assert_array_equal(x.numpy(), before)


@needs_compiler
def test_tied_weights_are_one_tensor(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    model = Tied().eval()
    bundle = export(model, [((6,), dtypes.float32)], tmp_path)
    described = json.loads((tmp_path / "net.json").read_text())
    assert [weight["name"] for weight in described["weights"]] == ["first.weight", "first.bias", "second.bias"]
    assert set(load_file(tmp_path / "net.safetensors")) == set(model.state_dict())
    inputs = make_inputs([((6,), dtypes.float32)], 7)
    expected = [model(from_array(inputs[0])).detach().numpy()]
    (got,) = run(build(bundle, 2), bundle, 7, inputs, expected)
    assert got.tobytes() == expected[0].tobytes()


# Refusals ---------------------------------------------------------------------------------------------------
def refused(forward: Callable[..., Any], match: str, tmp_path: Path, **shapes: tuple[int, ...]) -> None:
    model = Model(forward, shapes)
    before = {name: tensor.numpy().copy() for name, tensor in model.tensors.items()}
    with pytest.raises(UnsupportedError, match=match):
        export(model, [((6,), dtypes.float32)], tmp_path / "none", max_batch=100)
    assert not (tmp_path / "none").exists()
    # Nothing is left behind: weights are as they were, and recording goes on.
    for name, tensor in model.tensors.items():
        np.testing.assert_array_equal((tensor * 1).numpy(), before[name])


def test_refuses_what_is_not_one_plan(tmp_path: Path) -> None:
    here = r"test_export\.py:\d+ in \S+"
    value = f"needs a tensor's value at .*{here}"
    refused(lambda x: x if x.sum().item() > 0 else -x, value, tmp_path)
    refused(lambda x: x + from_array(x.numpy()), value, tmp_path)
    refused(lambda x: x if x.shape[0] < 4 else -x, "different things at different batches", tmp_path)
    refused(lambda x: tanh(x) if x.shape[0] < 4 else relu(x), "tanh at .* at batch 2, but relu", tmp_path)
    refused(lambda x: x[:40] * 2, "but slice at .* at batch 66", tmp_path)
    refused(lambda x: (x.view(-1, 1, 6) * x).view(-1) * 2,
            f"axis 0 of reshape at .*{here}.*: 24 at batch 2, 54 at batch 3", tmp_path)
    refused(lambda x: x[x.shape[0] // 2:] * 2, "not an affine function of the batch", tmp_path)
    refused(lambda x: x * (x.shape[0] ** 2), f"mul at .*{here} is given depends on the batch", tmp_path)
    refused(lambda x: x * from_array(np.full(6, x.shape[0], np.float32)), "constant.0.*depends", tmp_path)
    refused(lambda x, w: w.add_(x.sum(0)), f"writes to w in place .*{here}", tmp_path, w=(6,))


def test_refuses_what_runs_in_python_or_is_random(tmp_path: Path) -> None:
    here = r"test_export\.py:\d+ in \S+"
    host = r"cannot export inverse at .*" + here
    refused(lambda x: x + torch.linalg.inv(torch.eye(6) * (x.sum() + 50)).sum(0), host, tmp_path)
    refused(lambda x: torch.nn.functional.dropout(x), r"cannot export random at .*", tmp_path)


def test_refuses_bad_arguments(tmp_path: Path) -> None:
    x = from_array(np.zeros((2, 3), np.float32))
    for name in ("", "3d", "a-b", "int", "größe"):
        with pytest.raises(ValueError, match="identifier"):
            native.export(relu, (x,), tmp_path, name=name)
    for batch in (0, -1, 1 << 31, 2.0, True, "3"):
        with pytest.raises(ValueError, match="max_batch"):
            native.export(relu, (x,), tmp_path, max_batch=batch)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="tuple of tensors"):
        native.export(relu, x, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="example 1 must be a tensor, got int"):
        native.export(relu, (x, 3), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="agree"):
        native.export(lambda x, y: x + y, (x, x[:1]), tmp_path)
    with pytest.raises(ValueError, match="no axes"):
        native.export(relu, (x.sum(),), tmp_path)
    with pytest.raises(TypeError, match="got dict"):
        native.export(lambda x: {"y": x}, (x,), tmp_path)
    with pytest.raises(TypeError, match="empty tuple"):
        native.export(lambda x: (), (x,), tmp_path)
    model = Model(relu)
    model.training = True
    with pytest.raises(ValueError, match="eval"):
        native.export(model, (x,), tmp_path)


def test_recording_computes_nothing() -> None:
    """Inputs have no values: a batch whose activations no machine could hold is recorded all the same."""
    model, kinds = mnist()
    inputs = [from_array(array) for array in make_inputs(kinds, 1)]
    types = [Type(tuple(x.shape), x.dtype) for x in inputs]
    ((_, program),) = record_program(model, dict(model.named_parameters()), types, 1 << 30)
    assert program.variables and all(function.at(3) == 3 * function.factor for function in program.variables)
