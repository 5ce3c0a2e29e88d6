"""`<name>.rs`: a safe Rust module around the C interface."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template

from torturous.native.codes import Code
from torturous.native.describe import Value, count_text
from torturous.native.entry import Library
from torturous.native.training_entry import Training

_TYPES = {"uint8_t": "u8", "int32_t": "i32", "int64_t": "i64", "uint16_t": "u16", "float": "f32", "double": "f64"}
_TAKEN = frozenset(
    "as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move "
    "mut pub ref return self Self static struct super trait true type unsafe use where while code "
    "batch workspace gradients rate rates loss".split())
"""Words of the language, and names of the module."""

_COMMON = Template("""\
// $name: $what as a static library, made by torturous; a safe wrapper of $name.h.

use std::alloc::{alloc_zeroed, dealloc, handle_alloc_error, Layout};
use std::ffi::{c_char, c_int, c_void, CStr};
use std::fmt;

pub const MAX_BATCH: usize = $max_batch;
$sizes
const ALIGN: usize = 64;

extern "C" {
$functions
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

fn checked(code: c_int) -> Result<(), Error> {
    if code == 0 { Ok(()) } else { Err(Error(code)) }
}

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

/// Memory that calls with up to `batch` samples work in. One for each thread.
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
""")

_MODEL = Template("""
/// The model with its weights. Share it between threads.
pub struct Model {
    prepared: Block,
}

impl Model {
    /// Reads the contents of $name.safetensors.
    pub fn new(file: &[u8]) -> Result<Model, Error> {
        let prepared = Block::new(PREPARED_BYTES);
        checked(unsafe {
            ${name}_prepare(file.as_ptr().cast(), file.len(), prepared.start.cast(), PREPARED_BYTES)
        })?;
        Ok(Model { prepared })
    }

    /// Runs the model on `batch` samples. Panics if a slice is not as long as its shape says.
    pub fn run(&self, $parameters, batch: usize, workspace: &mut Workspace) -> Result<(), Error> {
        if batch < 1 || batch > MAX_BATCH {
            return Err(Error($ebatch));
        }
$lengths
        checked(unsafe {
            ${name}_run(self.prepared.start.cast(), $arguments, batch as i64,
                        workspace.block.start.cast(), workspace.bytes)
        })
    }
}
""")

_MODEL_FUNCTIONS = Template("""\
    fn ${name}_prepare(file: *const c_void, file_bytes: usize, prepared: *mut c_void, prepared_bytes: usize) -> c_int;
    fn ${name}_run(prepared: *const c_void, $raw, batch: i64,
                   workspace: *mut c_void, workspace_bytes: usize) -> c_int;""")

_TRAINER = Template("""
/// Gradients of all parameters, one after the other without gaps; $name.h says where each begins.
pub struct Gradients {
    block: Block,
}

impl Gradients {
    pub fn new() -> Gradients {
        Gradients { block: Block::new(GRADIENT_BYTES) }
    }

    pub fn bytes(&self) -> &[u8] {
        unsafe { std::slice::from_raw_parts(self.block.start, GRADIENT_BYTES) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        unsafe { std::slice::from_raw_parts_mut(self.block.start, GRADIENT_BYTES) }
    }
}

/// The model in training: parameters, buffers, the optimizer's state and the random generator's.
pub struct Trainer {
    state: Block,
}

impl Trainer {
    /// Reads the contents of $name.safetensors. A seed seeds the generator as Python's `manual_seed` does; without
    /// one its state comes from the file.
    pub fn new(file: &[u8], seed: Option<u32>) -> Result<Trainer, Error> {
        let state = Block::new(STATE_BYTES);
        checked(unsafe {
            ${name}_state_init(state.start.cast(), STATE_BYTES, file.as_ptr().cast(), file.len(),
                               seed.map_or(-1, i64::from))
        })?;
        Ok(Trainer { state })
    }

    /// A whole step on `batch` samples; gives the loss. Panics if a slice is not as long as its shape says.
    pub fn step(&mut self, $parameters, $safe_rate, batch: usize, workspace: &mut Workspace)
        -> Result<$loss, Error> {
        if batch < 1 || batch > MAX_BATCH {
            return Err(Error($ebatch));
        }
$lengths$rate_length
        let mut loss = 0 as $loss;
        checked(unsafe {
            ${name}_step(self.state.start.cast(), $arguments, &mut loss, $rate_argument, batch as i64,
                         workspace.block.start.cast(), workspace.bytes)
        })?;
        Ok(loss)
    }

    /// The first half of a step: the loss, and gradients.
    pub fn grad(&mut self, $parameters, gradients: &mut Gradients, batch: usize, workspace: &mut Workspace)
        -> Result<$loss, Error> {
        if batch < 1 || batch > MAX_BATCH {
            return Err(Error($ebatch));
        }
$lengths
        let mut loss = 0 as $loss;
        checked(unsafe {
            ${name}_grad(self.state.start.cast(), $arguments, &mut loss, gradients.block.start.cast(), batch as i64,
                         workspace.block.start.cast(), workspace.bytes)
        })?;
        Ok(loss)
    }

    /// The second half: changes parameters by gradients.
    pub fn apply(&mut self, gradients: &Gradients, $safe_rate, workspace: &mut Workspace) -> Result<(), Error> {
$rate_length
        checked(unsafe {
            ${name}_apply(self.state.start.cast(), gradients.block.start.cast(), $rate_argument,
                          workspace.block.start.cast(), workspace.bytes)
        })
    }

    /// The whole state as the contents of a safetensors file.
    pub fn export(&self) -> Result<Vec<u8>, Error> {
        let mut file = vec![0; FILE_BYTES];
        checked(unsafe { ${name}_state_export(self.state.start.cast(), file.as_mut_ptr().cast(), file.len()) })?;
        Ok(file)
    }
}
""")

_TRAINER_FUNCTIONS = Template("""\
    fn ${name}_state_init(state: *mut c_void, state_bytes: usize, file: *const c_void, file_bytes: usize,
                          seed: i64) -> c_int;
    fn ${name}_state_export(state: *const c_void, file: *mut c_void, file_bytes: usize) -> c_int;
    fn ${name}_step(state: *mut c_void, $raw, loss: *mut $loss, $raw_rate, batch: i64,
                    workspace: *mut c_void, workspace_bytes: usize) -> c_int;
    fn ${name}_grad(state: *mut c_void, $raw, loss: *mut $loss, gradients: *mut c_void, batch: i64,
                    workspace: *mut c_void, workspace_bytes: usize) -> c_int;
    fn ${name}_apply(state: *mut c_void, gradients: *const c_void, $raw_rate,
                     workspace: *mut c_void, workspace_bytes: usize) -> c_int;""")


def rust_model(library: Library) -> str:
    """The module for a library that runs a model."""
    d = library.description
    words = _words(library, d.inputs, d.outputs)
    sizes = f"pub const PREPARED_BYTES: usize = {library.block_bytes};"
    return (_COMMON.substitute(words, what="a model", sizes=sizes, functions=_MODEL_FUNCTIONS.substitute(words))
            + _MODEL.substitute(words))


def rust_trainer(t: Training) -> str:
    """The module for a library that trains one."""
    words = _words(t.library, t.inputs, ())
    several = t.rates > 1
    words |= {
        "loss": _TYPES[t.loss.c_type],
        "safe_rate": "rates: &[f64]" if several else "rate: f64",
        "raw_rate": "rates: *const f64" if several else "rate: f64",
        "rate_argument": "rates.as_ptr()" if several else "rate",
        "rate_length": f'\n        assert_eq!(rates.len(), {t.rates}, "one rate for each parameter group");' * several,
    }
    sizes = "\n".join(f"pub const {name}_BYTES: usize = {size};" for name, size in (
        ("STATE", t.library.block_bytes), ("GRADIENT", t.gradient_bytes), ("FILE", t.file_bytes)))
    common = _COMMON.substitute(
        words, what="a training step", sizes=sizes, functions=_TRAINER_FUNCTIONS.substitute(words))
    return common + _TRAINER.substitute(words)


def _words(library: Library, inputs: Sequence[Value], outputs: Sequence[Value]) -> dict[str, object]:
    raw, safe, arguments, lengths = [], [], [], []
    for value, out in [*((value, False) for value in inputs), *((value, True) for value in outputs)]:
        name = value.name + "_" if value.name in _TAKEN else value.name
        kind = _TYPES[value.c_type]
        raw.append(f"{name}: *{'mut' if out else 'const'} {kind}")
        safe.append(f"{name}: &{'mut ' if out else ''}[{kind}]")
        arguments.append(f"{name}.as_mut_ptr()" if out else f"{name}.as_ptr()")
        lengths.append(f'        assert_eq!({name}.len(), {count_text(value)}, "the length of {value.name}");')
    return {"name": library.name, "max_batch": library.max_batch, "ebatch": int(Code.EBATCH), "raw": ", ".join(raw),
            "parameters": ", ".join(safe), "arguments": ", ".join(arguments), "lengths": "\n".join(lengths)}
