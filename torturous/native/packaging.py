"""The parts of a bundle that tell other build systems and languages how to use it."""

from __future__ import annotations

from string import Template

from torturous.native.codes import Code
from torturous.native.describe import ABI, Description, Value
from torturous.native.entry import Library

_PC = Template("""\
prefix=$${pcfiledir}
Name: $name
Description: a model as a static library, made by torturous
Version: $abi
Libs: -L$${prefix} -l$name
Cflags: -I$${prefix}
""")

_CMAKE = Template("""\
# find_package($name REQUIRED PATHS <this folder>) gives the target $name::$name.
if(NOT TARGET $name::$name)
  add_library($name::$name STATIC IMPORTED)
  set_target_properties($name::$name PROPERTIES
    IMPORTED_LOCATION "$${CMAKE_CURRENT_LIST_DIR}/lib$name.a"
    INTERFACE_INCLUDE_DIRECTORIES "$${CMAKE_CURRENT_LIST_DIR}")
endif()
""")

_BUILD_RS = Template("""\
// Links lib$name.a, which lies beside this file. Use it as the package's build script, or call it from yours.

fn main() {
    let folder = std::env::var("${upper}_BUNDLE").unwrap_or_else(|_| {
        std::path::Path::new(file!()).parent().unwrap().to_string_lossy().into_owned()
    });
    let folder = std::fs::canonicalize(&folder).expect("the bundle's folder");
    println!("cargo:rerun-if-env-changed=${upper}_BUNDLE");
    println!("cargo:rustc-env=${upper}_BUNDLE={}", folder.display());
    println!("cargo:rerun-if-changed={}", folder.join("lib$name.a").display());
    println!("cargo:rustc-link-search=native={}", folder.display());
    println!("cargo:rustc-link-lib=static=$name");
}
""")

_RS = Template("""\
// $name: a model as a static library, made by torturous; a safe wrapper of $name.h.

use std::alloc::{alloc_zeroed, dealloc, handle_alloc_error, Layout};
use std::ffi::{c_char, c_int, c_void, CStr};
use std::fmt;

pub const MAX_BATCH: usize = $max_batch;
pub const PREPARED_BYTES: usize = $block_bytes;
const ALIGN: usize = 64;

extern "C" {
    fn ${name}_prepare(file: *const c_void, file_bytes: usize, prepared: *mut c_void, prepared_bytes: usize) -> c_int;
    fn ${name}_run(prepared: *const c_void, $raw_parameters, batch: i64,
                   workspace: *mut c_void, workspace_bytes: usize) -> c_int;
    fn ${name}_workspace_bytes(batch: i64, workers: i64) -> usize;
    fn ${name}_strerror(code: c_int) -> *const c_char;
}

/// What went wrong: a code of $name.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(pub i32);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        // The library's texts are constants.
        f.write_str(unsafe { CStr::from_ptr(${name}_strerror(self.0)) }.to_str().unwrap_or("unknown error"))
    }
}

impl std::error::Error for Error {}

/// Memory at a multiple of 64 bytes.
struct Block {
    start: *mut u8,
    layout: Layout,
}

unsafe impl Send for Block {}
unsafe impl Sync for Block {}

impl Block {
    fn new(bytes: usize) -> Block {
        let layout = Layout::from_size_align(bytes.max(ALIGN), ALIGN).expect("a size that memory can have");
        let start = unsafe { alloc_zeroed(layout) };
        if start.is_null() {
            handle_alloc_error(layout);
        }
        Block { start, layout }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        unsafe { dealloc(self.start, self.layout) }
    }
}

/// The model with its weights. Share it between threads.
pub struct Model {
    prepared: Block,
}

/// Memory that runs of up to `batch` samples work in. One for each thread.
pub struct Workspace {
    block: Block,
    bytes: usize,
}

impl Workspace {
    /// None for a batch out of range.
    pub fn new(batch: usize) -> Option<Workspace> {
        let bytes = (1..=batch).try_fold(0, |largest: usize, n| {
            let bytes = unsafe { ${name}_workspace_bytes(n as i64, 1) };
            if bytes == 0 { None } else { Some(largest.max(bytes)) }
        })?;
        if bytes == 0 { return None; }
        Some(Workspace { block: Block::new(bytes), bytes })
    }
}

impl Model {
    /// Reads the contents of $name.safetensors.
    pub fn new(file: &[u8]) -> Result<Model, Error> {
        let prepared = Block::new(PREPARED_BYTES);
        let code = unsafe {
            ${name}_prepare(file.as_ptr().cast(), file.len(), prepared.start.cast(), PREPARED_BYTES)
        };
        if code == 0 { Ok(Model { prepared }) } else { Err(Error(code)) }
    }

    /// Runs the model on `batch` samples. Panics if a slice is not as long as its shape says.
    pub fn run(&self, $safe_parameters, batch: usize, workspace: &mut Workspace) -> Result<(), Error> {
        if batch < 1 || batch > MAX_BATCH {
            return Err(Error($ebatch));
        }
$lengths
        let code = unsafe {
            ${name}_run(self.prepared.start.cast(), $arguments, batch as i64,
                        workspace.block.start.cast(), workspace.bytes)
        };
        if code == 0 { Ok(()) } else { Err(Error(code)) }
    }
}
""")

_GO = Template("""\
// Package $name: a model as a static library, made by torturous; a wrapper of $name.h.
package $name

// #cgo CFLAGS: -I$${SRCDIR}
// #cgo LDFLAGS: $${SRCDIR}/lib$name.a
// #include <stdlib.h>
// #include "$name.h"
import "C"

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"
)

const MaxBatch = $max_batch

// Model is the model with its weights; goroutines may share it.
type Model struct {
	memory   unsafe.Pointer
	prepared unsafe.Pointer
}

// Workspace is memory that a run works in; one for each goroutine.
type Workspace struct {
	memory unsafe.Pointer
	start  unsafe.Pointer
	bytes  C.size_t
}

func failure(code C.int) error {
	if code == 0 {
		return nil
	}
	return errors.New("$name: " + C.GoString(C.${name}_strerror(code)))
}

func aligned(bytes C.size_t) (unsafe.Pointer, unsafe.Pointer) {
	memory := C.malloc(bytes + 64)
	return memory, unsafe.Add(memory, (64-int(uintptr(memory)%64))%64)
}

// New reads the contents of $name.safetensors.
func New(file []byte) (*Model, error) {
	if len(file) == 0 {
		return nil, errors.New("$name: the file is empty")
	}
	model := new(Model)
	model.memory, model.prepared = aligned(C.${upper}_PREPARED_BYTES)
	runtime.SetFinalizer(model, func(m *Model) { C.free(m.memory) })
	code := C.${name}_prepare(unsafe.Pointer(&file[0]), C.size_t(len(file)), model.prepared, C.${upper}_PREPARED_BYTES)
	return model, failure(code)
}

// NewWorkspace is for runs of up to batch samples.
func NewWorkspace(batch int) (*Workspace, error) {
	var bytes C.size_t
	for n := 1; n <= batch; n++ {
		need := C.${name}_workspace_bytes(C.int64_t(n), 1)
		if need > bytes {
			bytes = need
		}
	}
	if bytes == 0 || batch > MaxBatch {
		return nil, fmt.Errorf("$name: no workspace for a batch of %d", batch)
	}
	w := &Workspace{bytes: bytes}
	w.memory, w.start = aligned(bytes)
	runtime.SetFinalizer(w, func(w *Workspace) { C.free(w.memory) })
	return w, nil
}

// Run runs the model on batch samples; slices are as long as their shapes say.
func (m *Model) Run($go_parameters, batch int, w *Workspace) error {
	if batch < 1 || batch > MaxBatch {
		return failure($ebatch)
	}
$go_lengths
	code := C.${name}_run(m.prepared, $go_arguments, C.int64_t(batch), w.start, w.bytes)
	runtime.KeepAlive(m)
	runtime.KeepAlive(w)
	return failure(code)
}
""")

_PY = Template('''\
"""$name: a model as a native library, made by torturous. Needs NumPy only.

    from $name import Model
    model = Model()
    output = model($call_names)
"""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path

import numpy as np

MAX_BATCH = $max_batch
PREPARED_BYTES = $block_bytes
INPUTS = $inputs
OUTPUTS = $outputs
"""(name, data type, shape as a function of the batch)"""


def _aligned(nbytes: int) -> np.ndarray:
    block = np.zeros(nbytes + 64, np.uint8)
    return block[-block.ctypes.data % 64:][:nbytes]


class Model:
    """The model with its weights; threads may share it."""

    def __init__(self, weights: str | Path | None = None, library: str | Path | None = None) -> None:
        """By default the library and the weights that lie beside this file."""
        folder = Path(__file__).resolve().parent
        self._library = ctypes.CDLL(str(library or folder / "$shared"))
        self._library.${name}_strerror.restype = ctypes.c_char_p
        self._library.${name}_workspace_bytes.restype = ctypes.c_size_t
        self._library.${name}_workspace_bytes.argtypes = [ctypes.c_int64, ctypes.c_int64]
        self._library.${name}_prepare.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t]
        self._library.${name}_run.argtypes = (
            [ctypes.c_void_p] * (1 + len(INPUTS) + len(OUTPUTS)) + [ctypes.c_int64, ctypes.c_void_p, ctypes.c_size_t])
        self._prepared = _aligned(PREPARED_BYTES)
        content = Path(weights or folder / "$name.safetensors").read_bytes()
        self._check(self._library.${name}_prepare(content, len(content), self._prepared.ctypes.data, PREPARED_BYTES))
        self._local = threading.local()

    def _check(self, code: int) -> None:
        if code:
            raise ValueError("$name: " + self._library.${name}_strerror(code).decode())

    def __call__(self, *inputs: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """Runs the model; the leading size of every input is the batch."""
        if len(inputs) != len(INPUTS):
            raise TypeError(f"$name takes {len(INPUTS)} inputs, got {len(inputs)}")
        batch = $batch_of
        if not 1 <= batch <= MAX_BATCH:
            raise ValueError(f"$name takes batches from 1 to {MAX_BATCH}, got {batch}")
        arrays = []
        for (name, dtype, shape), given in zip(INPUTS, inputs):
            array = np.ascontiguousarray(given, dtype)
            if array.shape != shape(batch):
                raise ValueError(f"$name: {name} must have shape {shape(batch)}, got {array.shape}")
            arrays.append(array)
        outputs = [np.empty(shape(batch), dtype) for _, dtype, shape in OUTPUTS]
        needed = self._library.${name}_workspace_bytes(batch, 1)
        workspace = getattr(self._local, "workspace", None)
        if workspace is None or workspace.nbytes < needed:
            workspace = self._local.workspace = _aligned(needed)
        pointers = [array.ctypes.data for array in [*arrays, *outputs]]
        self._check(self._library.${name}_run(
            self._prepared.ctypes.data, *pointers, batch, workspace.ctypes.data, workspace.nbytes))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)
''')

_RUST = {"uint8_t": "u8", "int32_t": "i32", "int64_t": "i64", "uint16_t": "u16", "float": "f32", "double": "f64"}
_GO_TYPES = {"uint8_t": "uint8", "int32_t": "int32", "int64_t": "int64", "uint16_t": "uint16", "float": "float32",
             "double": "float64"}
_RUST_WORDS = frozenset(
    "as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move "
    "mut pub ref return self Self static struct super trait true type unsafe use where while batch workspace".split())
_GO_WORDS = frozenset(
    "break case chan const continue default defer else fallthrough for func go goto if import interface map package "
    "range return select struct switch type var batch m w code len errors failure".split())


def build_files(library: Library) -> dict[str, str]:
    """What tells pkg-config, CMake and Cargo where the library lies."""
    name = library.name
    common = {"name": name, "upper": name.upper(), "abi": ABI}
    return {f"{name}.pc": _PC.substitute(common), f"{name}Config.cmake": _CMAKE.substitute(common),
            "build.rs": _BUILD_RS.substitute(common)}


def wrappers(library: Library, shared: str, fixed: bool) -> dict[str, str]:
    """A module for Rust, Go and Python each. `shared` is what a shared library is called; `fixed`: there is no
    batch."""
    d, name = library.description, library.name
    common = {"name": name, "upper": name.upper(), "max_batch": d.max_batch, "block_bytes": d.block_bytes,
              "ebatch": int(Code.EBATCH)}
    return {
        f"{name}.rs": _RS.substitute(common, **_rust(d)),
        f"{name}.go": _GO.substitute(common, **_go(d)),
        f"{name}.py": _PY.substitute(common, **_python(d, shared, fixed)),
    }


def _values(d: Description) -> list[tuple[Value, bool]]:
    return [*((value, False) for value in d.inputs), *((value, True) for value in d.outputs)]


def _count(value: Value, one: str, cast: str) -> str:
    """The number of elements at `batch`, as an expression."""
    sizes = []
    for size in value.shape:
        terms = []
        for monomial, factor in size.terms.items():
            terms.append(" * ".join([one % factor, *[cast] * len(monomial)]))
        sizes.append(f"({' + '.join(terms) or '0'})")
    return " * ".join(sizes) or "1"


def _rust(d: Description) -> dict[str, str]:
    raw, safe, arguments, lengths = [], [], [], []
    for value, out in _values(d):
        name = value.name + "_" if value.name in _RUST_WORDS else value.name
        kind = _RUST[value.c_type]
        raw.append(f"{name}: *{'mut' if out else 'const'} {kind}")
        safe.append(f"{name}: &{'mut ' if out else ''}[{kind}]")
        arguments.append(f"{name}.as_mut_ptr()" if out else f"{name}.as_ptr()")
        count = _count(value, "%d", "batch")
        lengths.append(f'        assert_eq!({name}.len(), {count}, "the length of {value.name}");')
    return {"raw_parameters": ", ".join(raw), "safe_parameters": ", ".join(safe), "arguments": ", ".join(arguments),
            "lengths": "\n".join(lengths)}


def _go(d: Description) -> dict[str, str]:
    parameters, arguments, lengths = [], [], []
    for value, _ in _values(d):
        name = value.name + "_" if value.name in _GO_WORDS else value.name
        parameters.append(f"{name} []{_GO_TYPES[value.c_type]}")
        arguments.append(f"(*C.{value.c_type})(unsafe.Pointer(&{name}[0]))")
        count = _count(value, "%d", "batch")
        complaint = f'fmt.Errorf("{d.name}: {value.name} has %d elements, not %d", len({name}), count)'
        lengths.append(f"\tif count := {count}; len({name}) != count || count == 0 {{\n\t\treturn {complaint}\n\t}}")
    return {"go_parameters": ", ".join(parameters), "go_arguments": ", ".join(arguments),
            "go_lengths": "\n".join(lengths)}


def _python(d: Description, shared: str, fixed: bool) -> dict[str, str]:
    def rows(values: list[Value]) -> str:
        parts = []
        for value in values:
            dtype = {"bool": "bool", "bfloat16": "uint16"}.get(value.dtype.name, value.dtype.name)
            sizes = "".join(f"{_size(size)}, " for size in value.shape)
            parts.append(f'("{value.name}", "{dtype}", lambda batch: ({sizes.rstrip(" ")}))')
        return f"[{', '.join(parts)}]"

    def _size(size: object) -> str:
        return repr(size).replace("batch0", "batch").replace("·", " * ")

    batch = "1" if fixed else "len(inputs[0])"
    return {"inputs": rows(list(d.inputs)), "outputs": rows(list(d.outputs)), "shared": shared, "batch_of": batch,
            "call_names": ", ".join(value.name for value in d.inputs)}
