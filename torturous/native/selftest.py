"""`<name>_selftest.c`: golden inputs and outputs in a program that any C compiler builds.

It gives 0 if the library computes, bit for bit, what the model computed in Python when it was exported.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import Template

import numpy as np

from torturous.native.describe import Value
from torturous.native.entry import Library

GOLDEN_BATCH = 3
"""Samples at most."""

_TEXT = Template("""\
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
