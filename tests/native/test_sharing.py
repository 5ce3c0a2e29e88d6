"""Work is shared out by an exported library as it is in Python."""
from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
from native.tools import tool

import torturous as torch
from torturous import native, nn
from torturous.codegen.builder import Builder
from torturous.codegen.expressions import Argument
from torturous.codegen.kernels import Generated
from torturous.codegen.loops import Divided, Work
from torturous.codegen.table import ENTRY_BYTES, PIECES
from torturous.codegen.target import host_target
from torturous.compiler.sizes import ZERO, Size
from torturous.native.sharing import sharing, write_shares
from torturous.native.workspace import BATCH, polynomial
from torturous.runtime.build import KernelSource, build
from torturous.runtime.shares import share_out

PARAMETERS = "ptr noalias %arguments, i64 %batch, i64 %unused, ptr noalias %scratch"


def random_kernel(random: np.random.Generator) -> Generated:
    def size() -> Size:
        return BATCH * int(random.integers(0, 40)) + int(random.integers(0, 300))

    divided = []
    for _ in range(int(random.integers(0, 3))):
        unit = int(random.choice([1, 8, 16]))
        divided.append(Divided(size(), unit, unit * int(random.choice([1, 4, 15]))))
    cost = Size.of(1) + size() * int(random.choice([1, 1000, 30000]))
    scratch = ZERO if random.random() < 0.5 else Size.of(64)
    arguments = [Argument("granule"), *(Argument("group", number) for number in range(len(divided)))]
    random.shuffle(arguments)
    return Generated("k", "", tuple(arguments), Work(size(), tuple(divided), cost), scratch)


def test_instructions_give_what_python_gives() -> None:
    target = host_target()
    random = np.random.default_rng(0)
    kernels = [random_kernel(random) for _ in range(60)]
    b = Builder(target)
    width = ENTRY_BYTES // 8 + 3
    for number, kernel in enumerate(kernels):
        known: dict = {}
        entry = b.offset("%arguments", 8 * width * number)
        write_shares(b, kernel, lambda size, known=known: polynomial(b, size, known), "net", entry,
                     b.offset(entry, ENTRY_BYTES))
    text = sharing(target, "net") + b.function("shares", PARAMETERS) + f"attributes #0 = {{ {target.attributes()} }}\n"
    (address,) = build([KernelSource("shares", text, "shares")], target)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)(address)
    for batch in (1, 2, 3, 7, 64, 1000):
        table = np.zeros(width * len(kernels), np.int64)
        for kernel, row in zip(kernels, table.reshape(-1, width), strict=True):
            for place, argument in enumerate(kernel.arguments):
                if argument.kind == "group":  # As they are where all is one piece.
                    row[ENTRY_BYTES // 8 + place] = kernel.work.divided[argument.what].most
        function(table.ctypes.data, batch, 0, table.ctypes.data)
        for kernel, row in zip(kernels, table.reshape(-1, width).tolist(), strict=True):
            shares = share_out(kernel, lambda size, batch=batch: size.evaluate(lambda _: batch))
            assert row[PIECES] == shares.pieces, (kernel, batch)
            for argument, word in zip(kernel.arguments, row[ENTRY_BYTES // 8:], strict=False):
                expected = shares.granule if argument.kind == "granule" else shares.groups[argument.what]
                assert word == expected, (kernel, batch)


COUNT = """
#include "net.h"
#include <stdio.h>
static _Alignas(64) unsigned char prepared[NET_PREPARED_BYTES], space[NET_WORKSPACE_BYTES(64, 4)];
static unsigned char file[1 << 23];
static float x[64 * 1024], y[64 * 1024], z[64 * 1024];
static int64_t most;
static void pool(void *none, int64_t pieces, void (*body)(void *, int64_t, int64_t), void *context) {
    (void)none;
    if (pieces > most) most = pieces;
    for (int64_t piece = pieces; piece-- > 0;) body(context, piece, piece % 4);
}
int main(int count, char **arguments) {
    FILE *stream = fopen(arguments[count - 1], "rb");
    size_t bytes = fread(file, 1, sizeof file, stream);
    if (net_prepare(file, bytes, prepared, sizeof prepared) != NET_OK) return 1;
    for (int k = 0; k < 64 * 1024; k++) x[k] = (float)(k % 97) / 97;
    if (net_run(prepared, x, y, 64, space, sizeof space) != NET_OK) return 2;
    if (net_run_parallel(prepared, x, z, 64, 4, space, sizeof space, pool, NULL) != NET_OK) return 3;
    for (int k = 0; k < 64 * 1024; k++) if (y[k] != z[k]) return 4;
    printf("%d\\n", (int)most);
    return 0;
}
"""


def test_a_linear_layer_has_work_for_several(tmp_path: Path) -> None:
    """Its items are smaller where there are workers to do them, whether the batch is known or not."""
    compiler = tool("cc")
    model = nn.Linear(1024, 1024).eval()
    for batches in ((), (64,)):
        native.export(model, (torch.zeros(64, 1024),), tmp_path, target="native", shared=False, batches=batches)
        (tmp_path / "count.c").write_text(COUNT)
        subprocess.run([compiler, "-O1", f"-I{tmp_path}", tmp_path / "count.c", tmp_path / "libnet.a", "-o",
                        tmp_path / "count"], check=True)
        ran = subprocess.run([tmp_path / "count", tmp_path / "net.safetensors"], capture_output=True, text=True)
        assert ran.returncode == 0, ran.returncode
        assert int(ran.stdout) >= 8
