"""`<name>.go`: a Go package (cgo) around the C interface."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template

from torturous.native.codes import Code
from torturous.native.describe import Value, count_text
from torturous.native.entry import Library
from torturous.native.training_entry import Training

_TYPES = {"uint8_t": "uint8", "int32_t": "int32", "int64_t": "int64", "uint16_t": "uint16", "float": "float32",
          "double": "float64"}
_TAKEN = frozenset(
    "break case chan const continue default defer else fallthrough for func go goto if import interface map package "
    "range return select struct switch type var batch m t w code len errors failure gradients rate rates loss "
    "count".split())
"""Words of the language, and names of the module."""

_COMMON = Template("""\
// Package $name: $what as a static library, made by torturous; a wrapper of $name.h.
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

// Workspace is memory that a call works in; one for each goroutine.
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

// NewWorkspace is for calls with up to batch samples.
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
""")

_MODEL = Template("""
// Model is the model with its weights; goroutines may share it.
type Model struct {
	memory   unsafe.Pointer
	prepared unsafe.Pointer
}

// New reads the contents of $name.safetensors.
func New(file []byte) (*Model, error) {
	if len(file) == 0 {
		return nil, errors.New("$name: the file is empty")
	}
	m := new(Model)
	m.memory, m.prepared = aligned(C.${upper}_PREPARED_BYTES)
	runtime.SetFinalizer(m, func(m *Model) { C.free(m.memory) })
	code := C.${name}_prepare(unsafe.Pointer(&file[0]), C.size_t(len(file)), m.prepared, C.${upper}_PREPARED_BYTES)
	return m, failure(code)
}

// Run runs the model on batch samples; slices are as long as their shapes say.
func (m *Model) Run($parameters, batch int, w *Workspace) error {
	if batch < 1 || batch > MaxBatch {
		return failure($ebatch)
	}
$lengths
	code := C.${name}_run(m.prepared, $arguments, C.int64_t(batch), w.start, w.bytes)
	runtime.KeepAlive(m)
	runtime.KeepAlive(w)
	return failure(code)
}
""")

_TRAINER = Template("""
// GradientBytes is the length of a block of gradients.
const GradientBytes = $gradient_bytes

// Gradients are those of all parameters, one after the other without gaps; $name.h says where each begins.
type Gradients struct {
	memory unsafe.Pointer
	start  unsafe.Pointer
}

// NewGradients makes room for gradients.
func NewGradients() *Gradients {
	gradients := new(Gradients)
	gradients.memory, gradients.start = aligned(GradientBytes)
	runtime.SetFinalizer(gradients, func(gradients *Gradients) { C.free(gradients.memory) })
	return gradients
}

// Bytes is the memory itself, to read and to write.
func (gradients *Gradients) Bytes() []byte {
	return unsafe.Slice((*byte)(gradients.start), GradientBytes)
}

// Trainer is the model in training: parameters, buffers, the optimizer's state and the random generator's.
type Trainer struct {
	memory unsafe.Pointer
	state  unsafe.Pointer
}

// New reads the contents of $name.safetensors. A seed from 0 on seeds the generator as Python's manual_seed does;
// with a negative one its state comes from the file.
func New(file []byte, seed int64) (*Trainer, error) {
	if len(file) == 0 {
		return nil, errors.New("$name: the file is empty")
	}
	t := new(Trainer)
	t.memory, t.state = aligned(C.${upper}_STATE_BYTES)
	runtime.SetFinalizer(t, func(t *Trainer) { C.free(t.memory) })
	code := C.${name}_state_init(t.state, C.${upper}_STATE_BYTES, unsafe.Pointer(&file[0]), C.size_t(len(file)),
		C.int64_t(seed))
	return t, failure(code)
}

// Step makes a whole step on batch samples and gives the loss; slices are as long as their shapes say.
func (t *Trainer) Step($parameters, $safe_rate, batch int, w *Workspace) ($loss, error) {
	if batch < 1 || batch > MaxBatch {
		return 0, failure($ebatch)
	}
$trainer_lengths$rate_length
	var loss C.$c_loss
	code := C.${name}_step(t.state, $arguments, &loss, $rate_argument, C.int64_t(batch), w.start, w.bytes)
	runtime.KeepAlive(t)
	runtime.KeepAlive(w)
	return $loss(loss), failure(code)
}

// Grad is the first half of a step: the loss, and gradients.
func (t *Trainer) Grad($parameters, gradients *Gradients, batch int, w *Workspace) ($loss, error) {
	if batch < 1 || batch > MaxBatch {
		return 0, failure($ebatch)
	}
$trainer_lengths
	var loss C.$c_loss
	code := C.${name}_grad(t.state, $arguments, &loss, gradients.start, C.int64_t(batch), w.start, w.bytes)
	runtime.KeepAlive(t)
	runtime.KeepAlive(w)
	runtime.KeepAlive(gradients)
	return $loss(loss), failure(code)
}

// Apply is the second half: it changes parameters by gradients.
func (t *Trainer) Apply(gradients *Gradients, $safe_rate, w *Workspace) error {$apply_rate_length
	code := C.${name}_apply(t.state, gradients.start, $rate_argument, w.start, w.bytes)
	runtime.KeepAlive(t)
	runtime.KeepAlive(w)
	runtime.KeepAlive(gradients)
	return failure(code)
}

// Export gives the whole state as the contents of a safetensors file.
func (t *Trainer) Export() ([]byte, error) {
	file := make([]byte, C.${upper}_FILE_BYTES)
	code := C.${name}_state_export(t.state, unsafe.Pointer(&file[0]), C.size_t(len(file)))
	runtime.KeepAlive(t)
	return file, failure(code)
}
""")


def go_model(library: Library) -> str:
    """The package for a library that runs a model."""
    d = library.description
    words = _words(library, [*d.inputs, *d.outputs])
    return _COMMON.substitute(words, what="a model") + _MODEL.substitute(words)


def go_trainer(t: Training) -> str:
    """The package for a library that trains one."""
    several = t.rates > 1
    complaint = f'fmt.Errorf("{t.library.name}: %d learning rates, not {t.rates}", len(rates))'

    def rate_length(result: str) -> str:
        return f"\n\tif len(rates) != {t.rates} {{\n\t\treturn {result}{complaint}\n\t}}" * several

    words = _words(t.library, t.inputs)
    words |= {
        "loss": _TYPES[t.loss.c_type], "c_loss": t.loss.c_type, "gradient_bytes": t.gradient_bytes,
        "safe_rate": "rates []float64" if several else "rate float64",
        "rate_argument": "(*C.double)(unsafe.Pointer(&rates[0]))" if several else "C.double(rate)",
        "rate_length": rate_length("0, "), "apply_rate_length": rate_length(""),
    }
    return _COMMON.substitute(words, what="a training step") + _TRAINER.substitute(words)


def _words(library: Library, values: Sequence[Value]) -> dict[str, object]:
    parameters, arguments, checks = [], [], []
    for value in values:
        name = value.name + "_" if value.name in _TAKEN else value.name
        parameters.append(f"{name} []{_TYPES[value.c_type]}")
        arguments.append(f"(*C.{value.c_type})(unsafe.Pointer(&{name}[0]))")
        complaint = f'fmt.Errorf("{library.name}: {value.name} has %d elements, not %d", len({name}), count)'
        head = f"\tif count := {count_text(value)}; len({name}) != count || count == 0 {{\n\t\treturn "
        checks.append((head, complaint))
    return {"name": library.name, "upper": library.name.upper(), "max_batch": library.max_batch,
            "ebatch": int(Code.EBATCH), "parameters": ", ".join(parameters), "arguments": ", ".join(arguments),
            "lengths": "\n".join(f"{check}{complaint}\n\t}}" for check, complaint in checks),
            "trainer_lengths": "\n".join(f"{check}0, {complaint}\n\t}}" for check, complaint in checks)}
