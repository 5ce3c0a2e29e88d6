"""What is guaranteed of every library, of those that train: wrong calls, many threads, nothing but what is passed."""
from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from native.test_export import export as export_model
from native.test_export import members, mnist
from native.test_training import OPTIMIZERS, export, files, small
from native.tools import tool

from torturous.codegen.objectfile import ALLOWED, defined_symbols, undefined_symbols

FUZZ = Path(__file__).with_name("fuzz_training.c")
FLAGS = ["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-pthread", "-fno-sanitize-recover=all"]
FUNCTIONS = {"grad", "apply", "step", "grad_parallel", "apply_parallel", "step_parallel", "state_init", "state_export",
             "state_bytes", "workspace_bytes", "strerror", "describe"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the small model, with a plan for a batch of its own."""
    path = tmp_path_factory.mktemp("train")
    model = small()
    export(model, OPTIMIZERS["adam"](model), path)
    return path


def test_ten_thousand_wrong_calls(folder: Path) -> None:
    compiler = tool("cc")
    program = folder / "fuzz"
    subprocess.run([compiler, *FLAGS, "-fsanitize=address,undefined", f"-I{folder}", FUZZ, folder / "libnet.a", "-o",
                    program], check=True)
    ran = subprocess.run([program, folder / "net.safetensors", "10000", "1"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


THREADS = """
#include "net.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define THREADS 4
#define STEPS 8
static unsigned char file[1 << 16], results[THREADS][NET_FILE_BYTES];
static size_t bytes;
static float image[6 * 64];
static int64_t target[6];

/* Each trains a state of its own, in memory that is as large as it is said to be and not a byte larger. */
static void *work(void *argument) {
    static const char wrong[] = "wrong";
    size_t place = (size_t)argument, space_bytes = NET_WORKSPACE_BYTES(6, 1);
    unsigned char *memory = aligned_alloc(64, 4 * 64 + (NET_STATE_BYTES + 63) / 64 * 64 + (space_bytes + 63) / 64 * 64);
    unsigned char *state = memory + 64, *space = state + (NET_STATE_BYTES + 63) / 64 * 64 + 64;
    memset(memory, 0xA5, 64), memset(state + NET_STATE_BYTES, 0xA5, 64);
    memset(space - 64, 0xA5, 64), memset(space + space_bytes, 0xA5, 64);
    if (net_state_init(state, NET_STATE_BYTES, file, bytes, 3) != NET_OK) return (void *)wrong;
    for (int step = 0; step < STEPS; step++) {
        float loss;
        if (net_step(state, image, target, &loss, 0.02, 6, space, space_bytes) != NET_OK) return (void *)wrong;
    }
    if (net_state_export(state, results[place], NET_FILE_BYTES) != NET_OK) return (void *)wrong;
    for (int k = 0; k < 64; k++)
        if (memory[k] != 0xA5 || state[NET_STATE_BYTES + k] != 0xA5 || space[k - 64] != 0xA5 ||
            space[space_bytes + (size_t)k] != 0xA5) return (void *)wrong;
    free(memory);
    return NULL;
}

static size_t read_into(const char *path, void *place, size_t most) {
    FILE *stream = fopen(path, "rb");
    return stream == NULL ? 0 : fread(place, 1, most, stream);
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    bytes = read_into(arguments[1], file, sizeof file);
    if (read_into(arguments[2], image, sizeof image) != sizeof image) return 3;
    if (read_into(arguments[3], target, sizeof target) != sizeof target) return 3;
    pthread_t threads[THREADS];
    for (size_t k = 0; k < THREADS; k++)
        if (pthread_create(&threads[k], NULL, work, (void *)k) != 0) return 5;
    int failed = 0;
    for (int k = 0; k < THREADS; k++) {
        void *result;
        pthread_join(threads[k], &result);
        failed |= result != NULL || memcmp(results[0], results[k], NET_FILE_BYTES) != 0;
    }
    return failed;
}
"""


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_many_threads_train_alike(sanitizer: str, folder: Path) -> None:
    """States and workspaces of their own, of exactly the size that is asked for, and nothing shared."""
    compiler = tool("cc")
    files(folder, 6)
    (folder / "threads.c").write_text(THREADS)
    subprocess.run([compiler, *FLAGS, f"-fsanitize={sanitizer}", f"-I{folder}", folder / "threads.c",
                    folder / "libnet.a", "-o", folder / "threads"], check=True)
    ran = subprocess.run([folder / "threads", folder / "net.safetensors", folder / "image", folder / "target"],
                         capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_symbols(folder: Path) -> None:
    """Nothing of the system but what is published, and everything is named after the export."""
    objects = members(folder / "libnet.a")
    defined = set().union(*map(defined_symbols, objects))
    assert set().union(*map(undefined_symbols, objects)) - defined <= ALLOWED
    assert all(name.startswith("net_") for name in defined)


def test_only_the_interface_is_seen(folder: Path) -> None:
    compiler = tool("cc")
    library = folder / "net.so"
    subprocess.run([compiler, "-shared", "-Wl,--whole-archive", folder / "libnet.a", "-Wl,--no-whole-archive",
                    "-Wl,-z,text", "-Wl,--fatal-warnings", "-o", library], check=True)
    listed = subprocess.check_output([tool("nm"), "-D", "--defined-only", library], text=True)
    assert {line.split()[-1] for line in listed.splitlines()} == {f"net_{function}" for function in FUNCTIONS}


def test_nothing_can_change_but_what_is_passed(folder: Path) -> None:
    """No section that can be written at run time, no thread-local storage."""
    readelf = tool("readelf")
    for data in members(folder / "libnet.a"):
        (folder / "member.o").write_bytes(data)
        listed = subprocess.check_output([readelf, "-SW", folder / "member.o"], text=True)
        for line in listed.splitlines():
            fields = line.split("]")[-1].split()
            if len(fields) > 7 and "W" in fields[6] and int(fields[4], 16):
                assert fields[0].startswith(".data.rel.ro"), line
            assert "T" not in fields[6:7], line


def test_a_model_and_its_training_in_one_program(folder: Path, tmp_path: Path) -> None:
    """One library that runs a model and one that trains it do not clash."""
    compiler = tool("cc")
    export_model(*mnist(), tmp_path, name="model", target="avx2", max_batch=2)
    (tmp_path / "both.c").write_text("""
        #include "model.h"
        #include "net.h"
        int main(void) {
            static _Alignas(64) char space[1 << 23];
            static float x[2 * 784], y[20];
            int model = model_run(space, x, y, 2, space, sizeof space);
            int train = net_step(space, x, (const int64_t *)(const void *)space, y, 0.1, 3, space, sizeof space);
            return model == MODEL_EWEIGHTS && train == NET_EWEIGHTS ? 0 : 1;
        }""")
    subprocess.run([compiler, "-Wall", "-Werror", f"-I{folder}", tmp_path / "both.c", tmp_path / "libmodel.a",
                    folder / "libnet.a", "-o", tmp_path / "both"], check=True)
    assert subprocess.run([tmp_path / "both"]).returncode == 0
