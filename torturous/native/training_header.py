"""The C header of an exported training step."""

from __future__ import annotations

from collections.abc import Mapping
from string import Template

from torturous.native.header import BOTTOM, parameters, top
from torturous.native.training_entry import Training
from torturous.native.workspace import C_MACROS

_TEXT = Template("""\
/* Everything that lasts from step to step, in one block: parameters, buffers, the optimizer's tensors, its count of
   steps and the random generator. From a safetensors file, which must hold the model's tensors; what is missing of the
   optimizer's begins as zeros. A seed from 0 on seeds the generator as Python's manual_seed does; a negative one takes
   the generator's state from the file. Of the seed, 32 bits count, as in PyTorch. */
int ${name}_state_init(void *state, size_t state_bytes, const void *file, size_t file_bytes, int64_t seed);

/* Writes the whole state as a safetensors file of ${upper}_FILE_BYTES bytes, which `${name}_state_init` and every other
   reader of such files understand. */
int ${name}_state_export(const void *state, void *file, size_t file_bytes);

/* The loss of a batch and the gradients of all parameters; advances the generator and running statistics.
   Gradients are one block of ${upper}_GRADIENT_BYTES bytes without gaps$offsets */
int ${name}_grad(void *state, $data, void *gradients, int64_t batch,
                 void *workspace, size_t workspace_bytes);

/* Changes parameters by gradients, which may have been summed up between machines. */
int ${name}_apply(void *state, const void *gradients, $rate,
                  void *workspace, size_t workspace_bytes);

/* Both, the gradients staying in the workspace. */
int ${name}_step(void *state, $data, $rate, int64_t batch,
                 void *workspace, size_t workspace_bytes);

/* The same on several threads of the caller's; they also give the same bits. */
int ${name}_grad_parallel(void *state, $data, void *gradients, int64_t batch, int64_t workers,
                          void *workspace, size_t workspace_bytes, ${name}_parallel_for run, void *pool);
int ${name}_apply_parallel(void *state, const void *gradients, $rate, int64_t workers,
                           void *workspace, size_t workspace_bytes, ${name}_parallel_for run, void *pool);
int ${name}_step_parallel(void *state, $data, $rate, int64_t batch, int64_t workers,
                          void *workspace, size_t workspace_bytes, ${name}_parallel_for run, void *pool);

/* ${upper}_WORKSPACE_BYTES as a function; 0 for arguments out of range. `${name}_apply` takes that of a batch of 1. */
size_t ${name}_workspace_bytes(int64_t batch, int64_t workers);
size_t ${name}_state_bytes(void);
""")


def training_header(t: Training, gradients: Mapping[str, int]) -> str:
    """The text of `<name>.h`."""
    library, upper = t.library, t.library.name.upper()
    sizes = "\n".join([
        f"#define {upper}_STATE_BYTES {library.block_bytes}",
        f"#define {upper}_GRADIENT_BYTES {t.gradient_bytes}",
        f"#define {upper}_FILE_BYTES {t.file_bytes}  /* what {library.name}_state_export writes */",
        f"#define {upper}_LEARNING_RATES {t.rates}",
        Template(C_MACROS).substitute(upper=upper),
        f"#define {upper}_WORKSPACE_BYTES(batch, workers) ({t.c_expression(upper)})",
    ])
    rate = "double learning_rate" if t.rates == 1 else "const double *learning_rates"
    lines = "".join(f"\n     {offset:>9}  {name}" for name, offset in gradients.items())
    text = _TEXT.substitute(name=library.name, upper=upper, data=parameters(t.inputs, [t.loss]), rate=rate,
                            offsets=f"; offset and name of each:{lines}")
    return top(library, "a training step", sizes, ", or a state,", t.inputs, [t.loss]) + text + BOTTOM
