"""Libraries for other machines: built with Debian's cross compilers, run under QEMU and in Node, the same bits."""
from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from native.test_export import MODELS, make_inputs, members, results
from native.test_training import OPTIMIZERS, example, files, small, train
from native.tools import tool
from safetensors.numpy import load_file

import torturous as torch
from torturous import native
from torturous.codegen.objectfile import ALLOWED, DOUBLES, ObjectFileError, defined_symbols, undefined_symbols
from torturous.nn import functional as F
from torturous.tensor.tensor import from_array

LINUX = {"aarch64-linux": "aarch64", "riscv64-linux": "riscv64"}
START = Path(__file__).with_name("cortex_m")


def export(name: str, folder: Path, target: str, **options: Any) -> native.Bundle:
    model, kinds = MODELS[name]()
    inputs = tuple(map(from_array, make_inputs(kinds, 3)))
    return native.export(model, inputs, folder, target=target, max_batch=8, **options)


@pytest.mark.parametrize("target", [*LINUX, "wasm32", "thumbv7em"])
@pytest.mark.parametrize("name", ["mnist", "across the batch", "lookup", "perceptron float16", "perceptron bfloat16"])
def test_nothing_is_left_to_others(name: str, target: str, tmp_path: Path) -> None:
    """No library function of the machine is called, and everything is named after the export."""
    export(name, tmp_path, target, shared=False)
    objects = members(tmp_path / "libnet.a")
    defined = set().union(*map(defined_symbols, objects))
    assert set().union(*map(undefined_symbols, objects)) - defined <= ALLOWED
    assert {"net_run", "net_prepare"} <= defined
    assert all(symbol.startswith("net_") for symbol in defined)


@pytest.mark.parametrize("target", LINUX)
@pytest.mark.parametrize("name", ["mnist", "across the batch", "lookup", "perceptron bfloat16", "perceptron float64"])
def test_linux(name: str, target: str, tmp_path: Path) -> None:
    machine = LINUX[target]
    compiler, emulator = tool(f"{machine}-linux-gnu-gcc"), tool(f"qemu-{machine}")
    export(name, tmp_path, target)
    program = tmp_path / "selftest"
    subprocess.run([compiler, "-static", "-O1", "-Wall", "-Wextra", "-Werror", tmp_path / "net_selftest.c",
                    tmp_path / "libnet.a", "-o", program], check=True)
    ran = subprocess.run([emulator, program, tmp_path / "net.safetensors"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "net: as in Python\n")


@pytest.mark.parametrize("target", LINUX)
def test_training_on_linux(target: str, tmp_path: Path) -> None:
    machine = LINUX[target]
    compiler, emulator = tool(f"{machine}-linux-gnu-gcc"), tool(f"qemu-{machine}")
    model = small()
    native.export_training(
        model, F.nll_loss, OPTIMIZERS["adam"](model), example(), tmp_path, target=target, max_batch=8)
    program = tmp_path / "selftest"
    subprocess.run([compiler, "-static", "-O1", "-Wall", "-Wextra", "-Werror", tmp_path / "net_selftest.c",
                    tmp_path / "libnet.a", "-o", program], check=True)
    ran = subprocess.run([emulator, program, tmp_path / "net.safetensors"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "net: as in Python\n")


def on_cortex_m(folder: Path, weights: str = "") -> str:
    """What the self-test says without an operating system, on a processor without double precision."""
    compiler, emulator = tool("arm-none-eabi-gcc"), tool("qemu-system-arm")
    program = folder / "selftest"
    subprocess.run(
        [compiler, "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "--specs=rdimon.specs",
         "-nostartfiles", "-T", START / "memory.ld", "-O1", f'-DWEIGHTS="{weights}"', folder / "net_selftest.c",
         START / "start.c", folder / "libnet.a", "-o", program], check=True, capture_output=True)
    ran = subprocess.run(
        [emulator, "-M", "mps2-an386", "-nographic", "-semihosting-config", "enable=on,target=native", "-kernel",
         program], cwd=folder, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize("name", ["mnist", "across the batch", "lookup", "perceptron bfloat16"])
def test_cortex_m(name: str, tmp_path: Path) -> None:
    """Weights in the library, no operating system."""
    tool("arm-none-eabi-gcc")
    export(name, tmp_path, "thumbv7em", embed_weights=True)
    assert on_cortex_m(tmp_path) == "net: as in Python\n"


@pytest.mark.parametrize("name", ["momentum", "asgd"])
def test_training_on_cortex_m(name: str, tmp_path: Path) -> None:
    """Double precision is what Arm's run-time ABI has of it, and nothing else is called."""
    tool("arm-none-eabi-gcc")
    model = small()
    optimizer = OPTIMIZERS[name](model)
    if name == "asgd":  # Its rate falls by a power, which needs fused multiply-adds of doubles.
        with pytest.raises(ObjectFileError, match="calls fma"):
            native.export_training(model, F.nll_loss, optimizer, example(), tmp_path, target="thumbv7em", max_batch=8)
        return
    native.export_training(model, F.nll_loss, optimizer, example(), tmp_path, target="thumbv7em", max_batch=8)
    objects = members(tmp_path / "libnet.a")
    defined = set().union(*map(defined_symbols, objects))
    assert set().union(*map(undefined_symbols, objects)) - defined <= ALLOWED | DOUBLES
    assert on_cortex_m(tmp_path, "net.safetensors") == "net: as in Python\n"


def test_what_a_machine_lacks_is_refused(tmp_path: Path) -> None:
    """Double precision on a processor without it would be calls into the compiler's library."""
    with pytest.raises(ObjectFileError, match=r"calls __aeabi_d\w+"):
        export("perceptron float64", tmp_path, "thumbv7em")
    with pytest.raises(ValueError, match="no target 'z80'.*wasm32"):
        export("mnist", tmp_path, "z80")


RUN_WASM = """
const fs = require("fs");
const [module_file, weights_file, job_file] = process.argv.slice(2);
const job = JSON.parse(fs.readFileSync(job_file));
const module_ = new WebAssembly.Module(fs.readFileSync(module_file));
if (WebAssembly.Module.imports(module_).length) throw new Error("the module wants imports");
const net = new WebAssembly.Instance(module_, {}).exports;
let top = net.__heap_base.value;
function place(bytes) {
    const start = (top + 63) & -64;
    top = start + bytes;
    const missing = top - net.memory.buffer.byteLength;
    if (missing > 0) net.memory.grow(Math.ceil(missing / 65536));
    return start;
}
function put(content) {
    const start = place(content.length);
    new Uint8Array(net.memory.buffer).set(content, start);
    return start;
}
const weights = fs.readFileSync(weights_file);
const prepared = place(job.prepared);
const code = net.net_prepare(put(weights), weights.length, prepared, job.prepared);
if (code) throw new Error("prepare: " + code);
const inputs = job.inputs.map(file => put(fs.readFileSync(file)));
const outputs = job.outputs.map(([_, bytes]) => place(bytes));
const bytes = net.net_workspace_bytes(BigInt(job.batch), 1n);
const ran = net.net_run(prepared, ...inputs, ...outputs, BigInt(job.batch), place(bytes), bytes);
if (ran) throw new Error("run: " + ran);
job.outputs.forEach(([file, length], k) =>
    fs.writeFileSync(file, new Uint8Array(net.memory.buffer).slice(outputs[k], outputs[k] + length)));
"""


@pytest.mark.parametrize("name", ["mnist", "across the batch", "lookup", "perceptron float64", "perceptron bfloat16"])
def test_wasm(name: str, tmp_path: Path) -> None:
    tool("wasm-ld")
    node = tool("node")
    export(name, tmp_path, "wasm32", shared=True)
    model, kinds = MODELS[name]()
    described = json.loads((tmp_path / "net.json").read_text())
    (tmp_path / "run.js").write_text(RUN_WASM)
    for batch in (1, 8):
        inputs = make_inputs(kinds, batch, seed=batch)
        expected = results(model, inputs)
        for position, array in enumerate(inputs):
            (tmp_path / f"in{position}").write_bytes(array.tobytes())
        (tmp_path / "job").write_text(json.dumps({
            "batch": batch, "prepared": described["prepared_bytes"],
            "inputs": [str(tmp_path / f"in{k}") for k in range(len(inputs))],
            "outputs": [[str(tmp_path / f"out{k}"), array.nbytes] for k, array in enumerate(expected)]}))
        subprocess.run([node, tmp_path / "run.js", tmp_path / "net.wasm", tmp_path / "net.safetensors",
                        tmp_path / "job"], check=True)
        for position, array in enumerate(expected):
            assert (tmp_path / f"out{position}").read_bytes() == array.tobytes()


TRAIN_WASM = """
const fs = require("fs");
const job = JSON.parse(fs.readFileSync("job"));
const net = new WebAssembly.Instance(new WebAssembly.Module(fs.readFileSync("net.wasm")), {}).exports;
let top = net.__heap_base.value;
function place(bytes) {
    const start = (top + 63) & -64;
    top = start + bytes;
    const missing = top - net.memory.buffer.byteLength;
    if (missing > 0) net.memory.grow(Math.ceil(missing / 65536));
    return start;
}
function put(file) {
    const content = fs.readFileSync(file), start = place(content.length);
    new Uint8Array(net.memory.buffer).set(content, start);
    return start;
}
function check(code) { if (code) throw new Error("code " + code); }
const state = place(net.net_state_bytes()), weights = put("net.safetensors");
check(net.net_state_init(state, net.net_state_bytes(), weights, fs.statSync("net.safetensors").size, BigInt(job.seed)));
const image = put("image"), target = put("target"), loss = place(4), batch = BigInt(job.batch);
const bytes = net.net_workspace_bytes(batch, 1n), space = place(bytes);
for (let step = 0; step < job.steps; step++)
    check(net.net_step(state, image, target, loss, job.rate, batch, space, bytes));
const file = place(job.file_bytes);
check(net.net_state_export(state, file, job.file_bytes));
fs.writeFileSync("after", new Uint8Array(net.memory.buffer).slice(file, file + job.file_bytes));
"""


def test_training_in_wasm(tmp_path: Path) -> None:
    """Steps in Node leave the parameters that steps in Python leave."""
    tool("wasm-ld")
    node = tool("node")
    model = small()
    native.export_training(model, F.nll_loss, OPTIMIZERS["adam"](model), example(), tmp_path, target="wasm32",
                           max_batch=8, shared=True)
    header = (tmp_path / "net.h").read_text()
    bytes_ = int(header.partition("#define NET_FILE_BYTES ")[2].split()[0])
    files(tmp_path, 4)
    (tmp_path / "job").write_text(json.dumps(
        {"seed": 6, "batch": 4, "steps": 3, "rate": 0.02, "file_bytes": bytes_}))
    (tmp_path / "run.js").write_text(TRAIN_WASM)
    subprocess.run([node, "run.js"], cwd=tmp_path, check=True)
    optimizer = OPTIMIZERS["adam"](model)
    torch.manual_seed(6)
    train(model, optimizer, 3, example(4, seed=4), 0.02)
    after = load_file(tmp_path / "after")
    for key, value in model.state_dict().items():
        assert after[key].tobytes() == value.numpy().tobytes(), key


def test_the_size_of_a_wasm_module(tmp_path: Path) -> None:
    """The classic net with its weights."""
    tool("wasm-ld")
    export("mnist", tmp_path, "wasm32", embed_weights=True, shared=True)
    assert (tmp_path / "net.wasm").stat().st_size <= 200_000


def test_other_systems_shared_libraries_are_what_they_say(tmp_path: Path) -> None:
    tool("ld.lld")
    for target, machine in (("aarch64-linux", 183), ("riscv64-linux", 243)):
        export("lookup", tmp_path / target, target, shared=True)
        header = (tmp_path / target / "libnet.so").read_bytes()[:20]
        assert header[:4] == b"\x7fELF" and int.from_bytes(header[18:20], "little") == machine


def test_weights_are_the_same_file_everywhere(tmp_path: Path) -> None:
    for target in ("aarch64-linux", "wasm32"):
        export("mnist", tmp_path / target, target, shared=False)
    one, other = ((tmp_path / target / "net.safetensors").read_bytes() for target in ("aarch64-linux", "wasm32"))
    assert one == other
    model, _ = MODELS["mnist"]()
    for name, array in load_file(tmp_path / "wasm32" / "net.safetensors").items():
        np.testing.assert_array_equal(array, model.tensors[name].numpy())
