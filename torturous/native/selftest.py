"""`<name>_selftest.c`: golden inputs and outputs in a program that any C compiler builds.

It gives 0 if the library computes, bit for bit, what the model computed in Python when it was exported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import Template

import numpy as np

from torturous.native.describe import Value
from torturous.native.entry import Library
from torturous.native.training_entry import Training
from torturous.native.weights import state_file, sums

GOLDEN_BATCH = 3
"""Samples at most."""


@dataclass(frozen=True)
class Golden:
    """Some training steps in Python: what went in, the losses, and the model's tensors afterwards."""

    seed: int
    batch: int
    inputs: list[np.ndarray]
    losses: list[np.ndarray]
    rates: list[float]
    tensors: dict[str, np.ndarray]

_TEXT = Template("""\
//go:build ignore

/* Does $name compute what it computed in Python? Usage: ${name}_selftest$usage */
#include "$name.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH $batch
$arrays
static _Alignas(${upper}_ALIGN) unsigned char workspace[${upper}_WORKSPACE_BYTES(BATCH, 1)];
$blocks
static int differ(const char *name, const void *have, const void *want, size_t bytes) {
    if (memcmp(have, want, bytes) == 0) return 0;
    printf("$name: %s differs\\n", name);
    return 1;
}

int main(int count, char **arguments) {
$prepare
    int code = ${name}_run($block, $pointers, BATCH, workspace, sizeof workspace);
    if (code != ${upper}_OK) {
        printf("$name: %s\\n", ${name}_strerror(code));
        return 1;
    }
    int wrong = 0;
$compares
    if (!wrong) puts("$name: as in Python");
    return wrong;
}
""")

_PREPARE = Template("""\
    if (count != 2) {
        puts("$name: give the weights file");
        return 2;
    }
    FILE *file = fopen(arguments[1], "rb");
    unsigned char *content = malloc($file_bytes + 1);
    if (file == NULL || content == NULL) {
        printf("$name: cannot read %s\\n", arguments[1]);
        return 2;
    }
    size_t bytes = fread(content, 1, $file_bytes + 1, file);
    fclose(file);
    int prepared_code = ${name}_prepare(content, bytes, prepared, sizeof prepared);
    free(content);
    if (prepared_code != ${upper}_OK) {
        printf("$name: %s\\n", ${name}_strerror(prepared_code));
        return 1;
    }""")

_WORDS = {1: "uint8_t", 2: "uint16_t", 4: "uint32_t", 8: "uint64_t"}


def selftest(
    library: Library, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray], batch: int, file_bytes: int,
    embedded: bool,
) -> str:
    """The program's text; arrays are those of the description's inputs and outputs at `batch`."""
    name, upper, d = library.name, library.name.upper(), library.description
    arrays, compares, pointers = [], [], []
    for value, array in zip(d.inputs, inputs, strict=True):
        arrays.append(f"static const {_bits(array)} input_{value.name}[] = {{\n{_words(array)}\n}};")
        pointers.append(f"(const {value.c_type} *)(const void *)input_{value.name}")
    for value, array in zip(d.outputs, outputs, strict=True):
        arrays.append(f"static const {_bits(array)} golden_{value.name}[] = {{\n{_words(array)}\n}};")
        arrays.append(f"static {_bits(array)} output_{value.name}[{max(array.size, 1)}];")
        pointers.append(f"({_type(value)})(void *)output_{value.name}")
        pair = f"output_{value.name}, golden_{value.name}, {array.nbytes}"
        compares.append(f'    wrong |= differ("{value.name}", {pair});')
    prepare = "    (void)count, (void)arguments;"
    if not embedded:
        prepare = _PREPARE.substitute(name=name, upper=upper, file_bytes=file_bytes)
    block = f"static _Alignas({upper}_ALIGN) unsigned char prepared[{upper}_PREPARED_BYTES];\n"
    return _TEXT.substitute(
        name=name, upper=upper, batch=batch, arrays="\n".join(arrays), prepare=prepare,
        usage="" if embedded else f" {name}.safetensors", blocks="" if embedded else block,
        block="NULL" if embedded else "prepared", pointers=", ".join(pointers), compares="\n".join(compares))


def _type(value: Value) -> str:
    return f"{value.c_type} *"


def _bits(array: np.ndarray) -> str:
    return _WORDS[array.dtype.itemsize]


def _words(array: np.ndarray) -> str:
    """An array's bit patterns."""
    flat = np.ascontiguousarray(array).reshape(-1).view(f"u{array.dtype.itemsize}")
    words = [hex(word) for word in flat.tolist()] or ["0"]
    return ",\n".join("    " + ", ".join(words[start:start + 12]) for start in range(0, len(words), 12))


_TRAINING = Template("""\
//go:build ignore

/* Does $name train as it trains in Python? Usage: ${name}_selftest $name.safetensors */
#include "$name.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH $batch
#define STEPS $steps
$arrays
static _Alignas(${upper}_ALIGN) unsigned char workspace[${upper}_WORKSPACE_BYTES(BATCH, 1)];
static _Alignas(${upper}_ALIGN) unsigned char state[${upper}_STATE_BYTES], again[${upper}_STATE_BYTES];
static _Alignas(8) unsigned char gradients[${upper}_GRADIENT_BYTES + 8];
static unsigned char file[${upper}_FILE_BYTES + 1];

/* A tensor in the exported file, and two sums over its 64-bit words in Python. */
static const struct { const char *name; size_t offset, bytes; uint64_t plain, weighted; } golden_tensors[] = {
$tensors
};

static int fail(const char *what, int code) {
    printf("$name: %s: %s\\n", what, ${name}_strerror(code));
    return 1;
}

int main(int count, char **arguments) {
    if (count != 2) {
        puts("$name: give the weights file");
        return 2;
    }
    FILE *stream = fopen(arguments[1], "rb");
    unsigned char *content = malloc($file_bytes + 1);
    if (stream == NULL || content == NULL) {
        printf("$name: cannot read %s\\n", arguments[1]);
        return 2;
    }
    size_t bytes = fread(content, 1, $file_bytes + 1, stream);
    fclose(stream);
    int code = ${name}_state_init(state, sizeof state, content, bytes, $seed);
    free(content);
    if (code != ${upper}_OK) return fail("state_init", code);
    int wrong = 0;
    for (int step = 0; step < STEPS; step++) {
        $loss_type loss[1];
        if (step % 2) {
            code = ${name}_grad(state, $pointers, loss, gradients, BATCH, workspace, sizeof workspace);
            if (code != ${upper}_OK) return fail("grad", code);
            code = ${name}_apply(state, gradients, $rate, workspace, sizeof workspace);
        } else {
            code = ${name}_step(state, $pointers, loss, $rate, BATCH, workspace, sizeof workspace);
        }
        if (code != ${upper}_OK) return fail("step", code);
        if (memcmp(loss, &golden_losses[step], sizeof *loss) != 0) {
            printf("$name: the loss of step %d differs\\n", step);
            wrong = 1;
        }
    }
    code = ${name}_state_export(state, file, sizeof file);
    if (code != ${upper}_OK) return fail("state_export", code);
    code = ${name}_state_init(again, sizeof again, file, ${upper}_FILE_BYTES, -1);
    if (code != ${upper}_OK) return fail("state_init of what state_export wrote", code);
    uint64_t header;
    memcpy(&header, file, 8);
    for (size_t k = 0; k < sizeof golden_tensors / sizeof *golden_tensors; k++) {
        uint64_t plain = 0, weighted = 0, word;
        for (size_t n = 0; 8 * n < golden_tensors[k].bytes; n++) {
            size_t left = golden_tensors[k].bytes - 8 * n;
            word = 0;
            memcpy(&word, file + 8 + header + golden_tensors[k].offset + 8 * n, left < 8 ? left : 8);
            plain += word;
            weighted += (2 * n + 1) * word;
        }
        if (plain != golden_tensors[k].plain || weighted != golden_tensors[k].weighted) {
            printf("$name: %s differs after %d steps\\n", golden_tensors[k].name, STEPS);
            wrong = 1;
        }
    }
    if (!wrong) puts("$name: as in Python");
    return wrong;
}
""")


def training_selftest(t: Training, golden: Golden, file_bytes: int) -> str:
    """The program's text."""
    library = t.library
    arrays, pointers, tensors = [], [], []
    for value, array in zip(t.inputs, golden.inputs, strict=True):
        arrays.append(f"static const {_bits(array)} input_{value.name}[] = {{\n{_words(array)}\n}};")
        pointers.append(f"(const {value.c_type} *)(const void *)input_{value.name}")
    losses = np.array(golden.losses)
    arrays.append(f"static const {_bits(losses)} golden_losses[] = {{\n{_words(losses)}\n}};")
    rate = f"{golden.rates[0]!r}"
    if t.rates > 1:
        arrays.append(f"static const double rates[] = {{{', '.join(map(repr, golden.rates))}}};")
        rate = "rates"
    _, _, offsets = state_file(library.weights)
    for weight, offset in zip(library.weights, offsets, strict=True):
        if weight.name in golden.tensors:
            plain, weighted = sums(np.ascontiguousarray(golden.tensors[weight.name]).tobytes())
            tensors.append(
                f'    {{"{weight.name}", {offset}, {weight.nbytes}, UINT64_C({plain}), UINT64_C({weighted})}},')
    return _TRAINING.substitute(
        name=library.name, upper=library.name.upper(), batch=golden.batch, steps=len(golden.losses),
        arrays="\n".join(arrays), tensors="\n".join(tensors), file_bytes=file_bytes, seed=golden.seed,
        loss_type=t.loss.c_type, pointers=", ".join(pointers), rate=rate)
