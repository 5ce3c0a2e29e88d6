"""Questions about devices and libraries, as programs ask them to see where they run: PyTorch's answers on a CPU."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import torturous

ANSWERS = [
    "cuda.is_available()", "cuda.device_count()", "cuda.is_initialized()", "cuda.is_bf16_supported()",
    "cuda.memory_allocated()", "cuda.max_memory_allocated(0)", "cuda.memory_reserved()", "cuda.max_memory_reserved()",
    "cuda.empty_cache()", "cuda.manual_seed(3)", "cuda.manual_seed_all(3)", "cuda.get_rng_state_all()",
    "cuda.set_rng_state_all([])", "cuda.get_arch_list()", "cuda.seed_all()", "dict(cuda.memory_stats())",
    "isinstance(zeros(1), cuda.FloatTensor)", "repr(cuda.LongTensor)",
    "cpu.is_available()", "cpu.is_initialized()", "cpu.device_count()", "cpu.current_device()", "cpu.set_device('cpu')",
    "cpu.synchronize()", "cpu.synchronize('cpu')",
    "accelerator.is_available()", "accelerator.current_accelerator()", "accelerator.device_count()",
    "backends.mps.is_available()", "backends.mps.is_built()", "backends.cudnn.is_available()",
    "backends.cudnn.version()", "backends.cudnn.enabled", "backends.cudnn.benchmark", "backends.cudnn.deterministic",
    "backends.cudnn.allow_tf32", "backends.cuda.is_built()", "backends.cuda.matmul.allow_tf32",
    "backends.cuda.flash_sdp_enabled()", "backends.cuda.math_sdp_enabled()", "mps.is_available()", "mps.device_count()",
    "mps.manual_seed(3)", "xpu.is_available()", "xpu.device_count()", "version.cuda", "version.hip", "version.debug",
    "get_float32_matmul_precision()", "set_float32_matmul_precision('highest')", "set_float32_matmul_precision('no')",
    "are_deterministic_algorithms_enabled()", "use_deterministic_algorithms(False)",
    "is_deterministic_algorithms_warn_only_enabled()", "set_default_device('cpu')", "set_default_device(None)",
    "set_default_tensor_type('torch.FloatTensor')", "set_default_tensor_type(FloatTensor)",
    "repr(device('cuda'))", "device('cuda:1').index", "str(device('cuda', 2))", "device(device('mps')).type",
    "device('cuda') == device('cpu')", "repr(device('cpu', 3))",
]
REFUSALS = [
    "cuda.current_device()", "cuda.synchronize()", "cuda.get_device_capability()", "cuda.get_device_properties(0)",
    "cuda.get_device_name(0)", "cuda.init()", "cuda.current_stream()", "cuda.get_rng_state()", "cuda.Stream()",
    "cuda.Event()", "cuda.FloatTensor([1.0])", "zeros(1).cuda()", "zeros(1, device='cuda')", "zeros(1).to('cuda:0')",
    "zeros(1).to(device('mps'))", "zeros(1, device='xpu')", "zeros(1).to(0)", "nn.Linear(1, 1).cuda()",
    "nn.Linear(1, 1).to('cuda')", "accelerator.set_device_index(0)", "accelerator.current_device_index()",
    "accelerator.synchronize()", "accelerator.memory_allocated()", "device('foo')", "device(0)", "device('cuda:x')",
    "device('cuda', -1)", "device('cuda:0', 0)", "device(1.5)", "set_default_tensor_type(3)",
    "compile(3)",
]


def evaluate(library: Any, expression: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return eval(expression, dict(vars(library), nn=library.nn))


@pytest.mark.parametrize("expression", ANSWERS)
def test_answers(expression: str) -> None:
    assert evaluate(torturous, expression) == evaluate(torch, expression)


@pytest.mark.parametrize("expression", REFUSALS)
def test_refusals(expression: str) -> None:
    with pytest.raises(Exception) as theirs:
        evaluate(torch, expression)
    with pytest.raises(theirs.type):
        evaluate(torturous, expression)


def test_switches_can_be_set() -> None:
    for library in (torturous, torch):
        cudnn = library.backends.cudnn
        saved = cudnn.benchmark
        cudnn.benchmark = True
        with cudnn.flags(enabled=False, benchmark=False):
            assert not cudnn.enabled and not cudnn.benchmark
        assert cudnn.enabled and cudnn.benchmark
        cudnn.benchmark = saved
        library.set_float32_matmul_precision("high")
        assert library.get_float32_matmul_precision() == "high"
        library.set_float32_matmul_precision("highest")
        library.use_deterministic_algorithms(True, warn_only=True)
        assert library.is_deterministic_algorithms_warn_only_enabled()
        library.use_deterministic_algorithms(False)


def test_the_device_that_there_is() -> None:
    device = torturous.device("cuda" if torturous.cuda.is_available() else "cpu")
    assert torturous.zeros(2, device=device).to(device).device == torturous.device("cpu")
    assert torturous.backends.cpu.get_cpu_capability() in ("AVX512", "AVX2", "DEFAULT")


VARIABLES = [
    "V(x).tolist()", "V(x) is x", "V(x, requires_grad=True).requires_grad", "V(x, True).grad_fn", "V([1.0])", "V(3)",
    "V(x, volatile=True).tolist()", "isinstance(x, V)", "isinstance(3, V)", "type(V(x)) is Tensor", "V().shape.numel()",
    "V(data=x).tolist()", "V(ones(2, requires_grad=True)).requires_grad", "V(V(x, True) * 2).requires_grad",
    "V(x).data_ptr() == x.data_ptr()",
    "V(arange(2), requires_grad=True)", "x.contiguous(memory_format=contiguous_format) is x",
    "x.is_contiguous(memory_format=channels_last)", "ones(1, 2, 3, 4).is_contiguous(memory_format=channels_last)",
    "ones(2, 1, 3, 4).is_contiguous(memory_format=channels_last)",
    "ones(2, 3, 4, 5).permute(0, 3, 1, 2).is_contiguous(memory_format=channels_last)",
]


@pytest.mark.parametrize("expression", VARIABLES)
def test_variables_and_formats(expression: str) -> None:
    answers = []
    for library in (torturous, torch):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            names = dict(vars(library), V=library.autograd.Variable, x=library.ones(2))
            try:
                answers.append(eval(expression, names))
            except Exception as error:
                answers.append(type(error))
    assert answers[0] == answers[1]
