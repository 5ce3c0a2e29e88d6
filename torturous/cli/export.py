"""`torturous export`: a model as a native library, from the command line."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from torturous.core import dtypes
from torturous.core.errors import UnsupportedError
from torturous.interop.saving import load
from torturous.native import Bundle, SizeBudgetError, export
from torturous.tensor import Tensor, zeros

_DTYPES = {dtype.name: dtype for dtype in (
    dtypes.bool_, dtypes.uint8, dtypes.int32, dtypes.int64, dtypes.float16, dtypes.bfloat16, dtypes.float32,
    dtypes.float64)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describes the command's arguments."""
    parser.add_argument(
        "source", metavar="module:function",
        help="what gives the model when called without arguments (a class will do): a module, or (module, examples)")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where to write the bundle")
    parser.add_argument("--weights", type=Path, metavar="FILE",
                        help="its state dict (safetensors or a checkpoint), to be loaded first")
    parser.add_argument(
        "--example", action="append", default=[], metavar="SHAPE[:DTYPE]",
        help="shape of an argument of forward, the batch first, as in 1,1,28,28 or 8,20:int64; needed, once for each "
             "argument, where the function gives no examples")
    parser.add_argument("--name", default="net", help="what the functions' names begin with (default: %(default)s)")
    parser.add_argument("--max-batch", type=int, default=256, metavar="N", help="largest batch (default: %(default)s)")
    parser.add_argument("--fixed-shape", action="store_true", help="there is no batch: all shapes are the examples'")
    parser.add_argument("--target", metavar="NAME",
                        help="avx512, avx2, sse2, aarch64-linux, riscv64-linux, wasm32 or thumbv7em (default: every "
                             "level of this machine's architecture, chosen at run time)")
    parser.add_argument("--batch", type=int, action="append", default=[], metavar="N",
                        help="a batch that gets a plan of its own; may be given several times")
    parser.add_argument("--embed-weights", action="store_true", help="make the weights part of the library")
    parser.add_argument("--size-budget", type=int, metavar="BYTES", help="fail if the code is larger")
    parser.add_argument("--shared", action="store_true", default=None,
                        help="also make a shared library, which needs a linker (default: where there is one)")


def run(args: argparse.Namespace) -> Bundle:
    """Exports what parsed arguments ask for. SystemExit, with words, for what cannot be."""
    made = _made(args.source)
    module, examples = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if examples is None:
        if not args.example:
            raise SystemExit(f"{args.source} gives no examples: describe forward's arguments with --example")
        examples = tuple(map(_example, args.example))
    elif args.example:
        raise SystemExit(f"{args.source} gives examples of its own: leave out --example")
    if args.weights is not None:
        if not hasattr(module, "load_state_dict"):
            raise SystemExit(f"{args.source} gives no module that --weights could be loaded into")
        module.load_state_dict(load(args.weights))
    if hasattr(module, "eval"):
        module.eval()
    if isinstance(examples, Tensor):
        examples = (examples,)
    try:
        bundle = export(
            module, examples, args.output, args.name, None if args.fixed_shape else args.max_batch, target=args.target,
            batches=tuple(args.batch), embed_weights=args.embed_weights, size_budget=args.size_budget,
            shared=args.shared)
    except (UnsupportedError, SizeBudgetError, ValueError, TypeError) as error:
        raise SystemExit(f"torturous export: {error}") from error
    print(f"{bundle.directory}: {bundle.code_bytes} bytes of code for {', '.join(bundle.targets)}, "
          f"{bundle.weights_bytes} bytes of weights in memory")
    return bundle


def _made(source: str) -> Any:
    """What `module:function` gives."""
    module_name, colon, function_name = source.partition(":")
    if not colon or not module_name or not function_name:
        raise SystemExit(f"{source!r} is not of the form module:function")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise SystemExit(f"there is no module {error.name!r}") from error
    finally:
        sys.path.pop(0)
    for part in function_name.split("."):
        if not hasattr(found, part):
            raise SystemExit(f"{module_name} has no {function_name}")
        found = getattr(found, part)
    if not callable(found):
        raise SystemExit(f"{source} is not a function: {type(found).__name__}")
    return found()


def _example(text: str) -> Tensor:
    """A tensor of a shape and data type given as text."""
    sizes, _, name = text.partition(":")
    dtype = _DTYPES.get(name or "float32")
    try:
        shape = tuple(int(size) for size in sizes.replace("x", ",").split(","))
    except ValueError:
        shape = (-1,)
    if dtype is None or min(shape) < 0:
        raise SystemExit(f"--example {text!r} is not of the form 1,1,28,28 or 8,20:int64")
    return zeros(shape, dtype=dtype)
