"""Exported libraries in hostile hands: wrong calls, damaged files, many threads, sanitizers watching."""
from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from native.test_export import HARNESS, build, export, lookup, make_inputs, mnist, results, run
from native.tools import tool

FUZZ = Path(__file__).with_name("fuzz.c")


def test_ten_thousand_wrong_calls(tmp_path: Path) -> None:
    compiler = tool("cc")
    export(*lookup(), tmp_path, max_batch=16, target="avx2")
    program = tmp_path / "fuzz"
    subprocess.run(
        [compiler, "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-fsanitize=address,undefined",
         "-fno-sanitize-recover=all", f"-I{tmp_path}", FUZZ, tmp_path / "libnet.a", "-o", program], check=True)
    for seed in ("1", "2"):
        ran = subprocess.run([program, tmp_path / "net.safetensors", "10000", seed], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_sanitizers_find_nothing(sanitizer: str, tmp_path: Path) -> None:
    """The consumer with its pools, under each sanitizer."""
    tool("cc")
    model, kinds = mnist()
    bundle = export(model, kinds, tmp_path, max_batch=64, target="avx2")
    program = build(bundle, 2, HARNESS, f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-g")
    inputs = make_inputs(kinds, 64)
    expected = results(model, inputs)
    (got,) = run(program, bundle, 64, inputs, expected)
    assert got.tobytes() == expected[0].tobytes()


THREADS = """
#include "net.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define THREADS 6
#define RUNS 60
static _Alignas(64) unsigned char prepared[NET_PREPARED_BYTES], before[NET_PREPARED_BYTES];
static float images[NET_MAX_BATCH * 784], golden[NET_MAX_BATCH][NET_MAX_BATCH * 10];

static void *work(void *argument) {
    static const char wrong[] = "wrong";
    size_t seed = (size_t)argument;
    void *space = aligned_alloc(64, (size_t)NET_RAISED_(NET_WORKSPACE_BYTES(NET_MAX_BATCH, 1)));
    float *output = malloc(sizeof *golden);
    for (int run = 0; run < RUNS; run++) {
        int64_t batch = 1 + (int64_t)((seed * 7 + (size_t)run * 5) % NET_MAX_BATCH);
        if (net_run(prepared, images, output, batch, space, NET_WORKSPACE_BYTES(batch, 1)) != NET_OK ||
            memcmp(output, golden[batch - 1], sizeof(float) * 10 * (size_t)batch) != 0) return (void *)wrong;
    }
    free(space);
    free(output);
    return NULL;
}

int main(int count, char **arguments) {
    static unsigned char file[1 << 20];
    static _Alignas(64) unsigned char space[NET_WORKSPACE_BYTES(NET_MAX_BATCH, 1)];
    FILE *stream = fopen(arguments[count - 1], "rb");
    size_t bytes = fread(file, 1, sizeof file, stream);
    if (net_prepare(file, bytes, prepared, sizeof prepared) != NET_OK) return 2;
    for (int k = 0; k < NET_MAX_BATCH * 784; k++) images[k] = (float)(k * 37 % 101) / 50 - 1;
    /* What is enough for a batch is enough for smaller ones; the macro is what the function gives. */
    for (int64_t batch = 1; batch <= NET_MAX_BATCH; batch++) {
        if ((int64_t)net_workspace_bytes(batch, 3) != NET_WORKSPACE_BYTES(batch, 3)) return 6;
        if (batch > 1 && net_workspace_bytes(batch, 1) < net_workspace_bytes(batch - 1, 1)) return 7;
    }
    for (int64_t batch = 1; batch <= NET_MAX_BATCH; batch++)
        if (net_run(prepared, images, golden[batch - 1], batch, space, sizeof space) != NET_OK) return 3;
    /* What a sample gives does not depend on the batch that it came in. */
    for (int64_t batch = 1; batch < NET_MAX_BATCH; batch++)
        if (memcmp(golden[batch - 1], golden[NET_MAX_BATCH - 1], sizeof(float) * 10 * (size_t)batch) != 0) return 4;
    memcpy(before, prepared, sizeof before);
    pthread_t threads[THREADS];
    for (size_t k = 0; k < THREADS; k++)
        if (pthread_create(&threads[k], NULL, work, (void *)k) != 0) return 5;
    int failed = 0;
    for (int k = 0; k < THREADS; k++) {
        void *result;
        pthread_join(threads[k], &result);
        failed |= result != NULL;
    }
    return failed || memcmp(before, prepared, sizeof before) != 0;
}
"""


@pytest.mark.parametrize("options", [{}, {"batches": (4, 16)}], ids=str)
def test_many_threads_and_one_copy_of_the_weights(options: dict[str, Any], tmp_path: Path) -> None:
    """All batches up to the largest; the block of weights is only read."""
    compiler = tool("cc")
    export(*mnist(), tmp_path, max_batch=20, target="avx2", **options)
    source, program = tmp_path / "threads.c", tmp_path / "threads"
    source.write_text(THREADS)
    subprocess.run([compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-pthread", "-fsanitize=thread",
                    source, tmp_path / "libnet.a", "-o", program], check=True)
    ran = subprocess.run([program, tmp_path / "net.safetensors"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
