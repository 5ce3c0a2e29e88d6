"""The vector mathematics: accuracy, special values, and the same bits on every target and number of lanes."""
from __future__ import annotations

import ctypes
import math
import warnings
from fractions import Fraction
from functools import cache

import llvmlite.binding as llvm
import numpy as np
import pytest
import torch

from torturous.codegen import objectfile
from torturous.codegen.arithmetic import Arithmetic, convert
from torturous.codegen.builder import Builder, looping
from torturous.codegen.emitter import kind
from torturous.codegen.target import X86_LEVELS, Target, host_target, neon_target, x86_target
from torturous.core import dtypes
from torturous.ir import elementwise
from torturous.runtime.linker import link

FLOATS = (dtypes.float32, dtypes.float64)
INTEGERS = (dtypes.uint8, dtypes.int32, dtypes.int64)
LANES = (1, 8, 16)
WIDE_REFERENCE = np.finfo(np.longdouble).nmant > 60

# Bounds in units in the last place of the result, for float32 and float64.
BOUNDS = {
    "exp": (1.0, 1.0), "expm1": (1.3, 1.3), "log": (1.1, 1.3), "log1p": (1.2, 1.3), "log2": (1.8, 2.0),
    "log10": (1.4, 2.3), "sqrt": (0.5, 0.5), "tanh": (1.2, 2.5), "sigmoid": (1.5, 1.6), "erf": (1.1, 2.0),
    "sin": (1.5, 2.3), "cos": (1.5, 2.3), "asin": (1.2, 1.2), "acos": (1.0, 1.0), "atan": (2.0, 2.0),
    "asinh": (2.0, 2.0), "acosh": (2.3, 2.6), "atanh": (2.0, 2.1),
}


def available() -> list[Target]:
    """The targets that this machine can run, its best first."""
    targets = []
    for name in (*X86_LEVELS, "neon"):
        try:
            targets.append(host_target(name))
        except ValueError:
            continue
    return targets


TARGETS = available()
EVERYWHERE = [(target, lanes) for target in TARGETS for lanes in LANES]
ids = {"ids": lambda value: getattr(value, "name", str(value))}


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(20240229)


@cache
def machine(target: Target):
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    try:
        known = llvm.Target.from_triple(target.triple)
    except RuntimeError:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        known = llvm.Target.from_triple(target.triple)
    return known.create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="small"
    )


def compiled(target, lanes, body, sources, out, compute=None) -> bytes:
    """The object of a loop over `out[i] = body(e, *inputs[i])`, having checked that it calls nothing."""
    b = Builder(target)
    e = Arithmetic(b, compute or sources[0], lanes)
    with looping(b, 0, "%count", lanes) as index:
        places = [b.offset(f"%in{i}", b.mul(index, d.itemsize)) for i, d in enumerate(sources)]
        values = [b.load(kind(d, lanes), place, 1) for d, place in zip(sources, places, strict=True)]
        b.store(kind(out, lanes), body(e, *values), b.offset("%out", b.mul(index, out.itemsize)), 1)
    parameters = ", ".join([*(f"ptr %in{i}" for i in range(len(sources))), "ptr %out", "i64 %count"])
    text = "\n".join([*b.declarations.values(), b.function("kernel", parameters),
                      f"attributes #0 = {{ {target.attributes()} }}"])
    module = llvm.parse_assembly(text, llvm.create_context())
    module.triple = target.triple
    module.verify()
    data = machine(target).emit_object(module)
    objectfile.check(data, f"{lanes} lanes on {target.name}")
    return data


def run(target, lanes, body, arrays, sources, out, compute=None):
    address = link(compiled(target, lanes, body, sources, out, compute), "kernel")
    count = len(arrays[0])
    padded = -(-count // lanes) * lanes
    inputs = []
    for array, dtype in zip(arrays, sources, strict=True):
        whole = np.ones(padded, dtype.numpy)
        whole[:count] = array
        inputs.append(whole)
    result = np.empty(padded, out.numpy)
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (len(inputs) + 1), ctypes.c_int64)(address)
    function(*[array.ctypes.data for array in inputs], result.ctypes.data, padded)
    return result[:count]


def pattern(array):
    """The bits, all NaN being one."""
    if array.dtype.kind != "f":
        return array
    whole = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
    return whole.view(f"u{array.itemsize}")


def run_everywhere(body, arrays, sources, out, compute=None):
    """The result, which must not depend on target and lanes."""
    results = [run(target, lanes, body, arrays, sources, out, compute) for target, lanes in EVERYWHERE]
    for (target, lanes), result in zip(EVERYWHERE[1:], results[1:], strict=True):
        differ = np.nonzero(pattern(result) != pattern(results[0]))[0]
        at = [array[differ[:3]] for array in arrays]
        assert not len(differ), (target.name, lanes, at, result[differ[:3]], results[0][differ[:3]])
    return results[0]


def named(name):
    return lambda e, *values: getattr(e, name)(*values)


def specials(dtype):
    limits = np.finfo(dtype.numpy)
    positive = np.array([
        0, 1, 2, 3, 0.5, 1.5, 2.5, 0.75, 1e10, 2**17, 2**47, 2**52 + 1, 1 - limits.epsneg, 1 + limits.eps,
        limits.eps, limits.tiny, limits.tiny * 0.7, limits.smallest_subnormal, limits.max, np.inf,
    ]).astype(dtype.numpy)
    return np.concatenate([positive, -positive, [np.nan]]).astype(dtype.numpy)


def everything(dtype, rng, count=2500):
    """Numbers of all exponents, and more of them where functions are interesting."""
    word = np.uint32 if dtype is dtypes.float32 else np.uint64
    parts = [specials(dtype), rng.integers(0, np.iinfo(word).max, count, word, True).view(dtype.numpy)]
    parts += [(rng.normal(size=count) * scale).astype(dtype.numpy) for scale in (0.3, 1, 4, 20, 100, 700)]
    parts += [(1 + rng.normal(size=count) * scale).astype(dtype.numpy) for scale in (0.3, 0.003)]
    return np.concatenate(parts)


def last_places(got, expected):
    """Errors in units in the last place; infinite where NaN, infinity or a zero's sign is not as expected."""
    limits = np.finfo(got.dtype)
    rounded = expected.astype(got.dtype)
    _, exponent = np.frexp(np.abs(expected))
    unit = np.ldexp(expected.dtype.type(1), np.maximum(exponent - 1, limits.minexp) - limits.nmant)
    error = np.abs(got.astype(expected.dtype) - expected) / unit
    same = pattern(got) == pattern(rounded)
    error[same] = np.minimum(np.nan_to_num(error[same], nan=0.0, posinf=0.0), 0.5)
    return np.where((np.signbit(got) != np.signbit(expected)) & ~np.isnan(expected), np.inf,
                    np.nan_to_num(error, nan=np.inf, posinf=np.inf))


def _sigmoid(x):
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, x.dtype.type(1)) / (1 + small)


def _erf(x):
    return torch.erf(torch.from_numpy(x.astype(np.float64))).numpy()


INVERSE = {"asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "asinh": np.arcsinh, "acosh": np.arccosh,
           "atanh": np.arctanh}
REFERENCES = {name: getattr(np, name, None) for name in BOUNDS} | INVERSE | {"sigmoid": _sigmoid, "erf": _erf}


@pytest.mark.parametrize("dtype", FLOATS, **ids)
@pytest.mark.parametrize("name", BOUNDS)
def test_functions(name, dtype, rng):
    x = everything(dtype, rng)
    got = run_everywhere(named(name), [x], [dtype], dtype)
    bound = BOUNDS[name][dtype is dtypes.float64]
    if dtype is dtypes.float64 and not WIDE_REFERENCE:
        bound += 1.0
    wide = np.float64 if dtype is dtypes.float32 else np.longdouble
    expected = REFERENCES[name](x.astype(wide))
    error = last_places(got, expected)
    worst = error.argmax()
    assert error[worst] <= bound, (x[worst], got[worst], expected[worst], error[worst])


@pytest.mark.parametrize("name", BOUNDS)
def test_float32_across_all_exponents(name):
    x = np.arange(0, 2**32, 6151, np.uint64).astype(np.uint32).view(np.float32)
    got = run(TARGETS[0], TARGETS[0].lanes, named(name), [x], [dtypes.float32], dtypes.float32)
    error = last_places(got, REFERENCES[name](x.astype(np.float64)))
    worst = error.argmax()
    assert error[worst] <= BOUNDS[name][0], (x[worst], got[worst], error[worst])


@pytest.mark.parametrize("dtype", FLOATS, **ids)
def test_angles_of_points(dtype, rng):
    a = everything(dtype, rng)
    near = (a * (1 + 0.4 * rng.normal(size=len(a)))).astype(dtype.numpy)
    special = np.array(np.meshgrid(specials(dtype), specials(dtype))).reshape(2, -1)
    y, x = np.concatenate([a, near, special[0]]), np.concatenate([rng.permutation(a), a, special[1]])
    got = run_everywhere(named("atan2"), [y, x], [dtype] * 2, dtype)
    error = last_places(got, np.arctan2(y.astype(np.longdouble), x.astype(np.longdouble)))
    worst = error.argmax()
    assert error[worst] <= (2.0 if WIDE_REFERENCE else 3.0), (y[worst], x[worst], got[worst], error[worst])


@pytest.mark.parametrize("dtype", FLOATS, **ids)
def test_angles_next_to_multiples_of_half_pi(dtype, rng):
    near = (rng.integers(1, 2**40, 3000) * np.longdouble(math.pi / 2)).astype(dtype.numpy)
    number = dtype.numpy.type
    x = np.concatenate([near, np.nextafter(near, number(np.inf)), -near, near * number(2.0**60)])
    for name in ("sin", "cos"):
        got = run(TARGETS[0], 8, named(name), [x], [dtype], dtype)
        expected = REFERENCES[name](x.astype(np.longdouble))
        assert last_places(got, expected).max() <= (2.3 if WIDE_REFERENCE else 3.3)


@pytest.mark.parametrize("dtype", FLOATS, **ids)
@pytest.mark.parametrize("name", ["floor", "ceil", "round", "trunc"])
def test_rounding(name, dtype, rng):
    ties = np.arange(-200, 200, dtype=dtype.numpy) / 2
    edge = dtype.numpy.type(2.0 ** np.finfo(dtype.numpy).nmant) + ties
    x = np.concatenate([everything(dtype, rng), ties, edge, -edge, edge / 2])
    got = run_everywhere(named(name), [x], [dtype], dtype)
    np.testing.assert_array_equal(pattern(got), pattern(getattr(np, name)(x)))


@pytest.mark.parametrize("dtype", INTEGERS, **ids)
@pytest.mark.parametrize("name", ["floor", "ceil", "round", "trunc"])
def test_rounding_leaves_integers(name, dtype, rng):
    x = whole_numbers(dtype, rng)[0]
    np.testing.assert_array_equal(run(TARGETS[0], 8, named(name), [x], [dtype], dtype), x)


# Fused multiply-add -----------------------------------------------------------------------------------------
def nearest(number: Fraction, dtype):
    """The float nearest to an exact number, ties to even."""
    limits = np.finfo(dtype.numpy)
    if number == 0:
        return dtype.numpy.type(0)
    magnitude = abs(number)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    exponent -= magnitude < Fraction(2) ** exponent
    unit = Fraction(2) ** (max(exponent, limits.minexp) - limits.nmant)
    rounded = round(magnitude / unit) * unit
    value = math.inf if rounded > Fraction(float(limits.max)) else float(rounded)
    return dtype.numpy.type(value if number > 0 else -value)


def products_and_addends(dtype, rng, count):
    """Triples with cancellation, ties, subnormal results and overflow in them."""
    limits, number = np.finfo(dtype.numpy), dtype.numpy.type
    a, b = rng.normal(size=count), rng.normal(size=count)
    yield a, b, -(a.astype(number) * b.astype(number)) * (1 + rng.integers(-4, 5, count) * float(limits.eps))
    low, bits = limits.minexp, limits.nmant
    tiny = rng.integers(low - bits - 3, low + 4, (2, count))
    shift = rng.integers(-30, 30, count)
    yield np.ldexp(a, shift), np.ldexp(b, tiny[0] - shift), np.ldexp(rng.normal(size=count), tiny[1])

    def few(low, high):
        return np.ldexp(rng.integers(-9, 10, count) * 1.0, rng.integers(low, high, count))

    yield few(low // 2 - 30, low // 2 + 30), few(low // 2 - 30, low // 2 + 30), few(low - bits - 3, low + 60)
    yield few(-20, 20), few(-20, 20), few(-70, 70)
    yield 1 + few(-55, -3), 1 + few(-55, -3), (-1 - few(-55, -3)) * np.ldexp(1.0, -rng.integers(0, 56, count))
    huge = np.ldexp(a, limits.maxexp - rng.integers(0, 4, count))
    yield huge, b, -huge * b * rng.choice([0.5, 0.9, 1, 2], count)


@pytest.mark.parametrize("dtype", FLOATS, **ids)
def test_fused_multiply_add_is_rounded_once(dtype, rng):
    triples = [np.array(triple).astype(dtype.numpy) for triple in products_and_addends(dtype, rng, 2000)]
    special = specials(dtype)
    triples.append(np.array(np.meshgrid(special, special, special)).reshape(3, -1))
    raw = rng.integers(0, 256, (3, 3000, dtype.itemsize), np.uint8).view(dtype.numpy)[..., 0]
    a, b, c = np.concatenate([*triples, raw], axis=1)
    got = run_everywhere(named("fused_multiply_add"), [a, b, c], [dtype] * 3, dtype)
    finite = np.nonzero(np.isfinite(a) & np.isfinite(b) & np.isfinite(c))[0]
    for i in rng.choice(finite, 4000, replace=False):
        product = Fraction(float(a[i])) * Fraction(float(b[i]))
        # Zeros keep the signs that plain arithmetic gives them.
        expected = nearest(product + Fraction(float(c[i])), dtype) if product else a[i] * b[i] + c[i]
        assert pattern(got[i : i + 1]) == pattern(np.array([expected])), (a[i], b[i], c[i], got[i], expected)
    others = np.setdiff1d(np.arange(len(a)), finite)
    product_finite = np.isfinite(a) & np.isfinite(b)
    plain = np.where(product_finite, c, a * b + c)[others]
    np.testing.assert_array_equal(got[others], plain)


# Quotients, remainders and powers ---------------------------------------------------------------------------
def whole_numbers(dtype, rng, count=4000):
    limits = np.iinfo(dtype.numpy)
    ends = [limits.min, limits.min + 1, limits.max, limits.max - 1, 0, 1, 2, 3]
    ends = np.array(ends + ([-1, -2, -3] if dtype.signed else []), dtype.numpy)
    full = rng.integers(limits.min, limits.max, (3, count), dtype.numpy, True)
    small = rng.integers(-20 if dtype.signed else 0, 20, (3, count)).astype(dtype.numpy)
    pairs = np.array(np.meshgrid(ends, ends)).reshape(2, -1)
    return (np.concatenate([full[0], full[1], small[0], pairs[0]]),
            np.concatenate([full[2], small[1], small[2], pairs[1]]))


@pytest.mark.parametrize("dtype", INTEGERS, **ids)
def test_integer_division(dtype, rng):
    a, b = whole_numbers(dtype, rng)
    zero = b == 0
    wraps = (a == np.iinfo(dtype.numpy).min) & (b == np.array(-1).astype(dtype.numpy)) & dtype.signed
    plain = ~zero & ~wraps
    x, y = torch.from_numpy(a[plain]), torch.from_numpy(b[plain])
    for name, expected in (
        ("floor_divide", torch.floor_divide(x, y)),
        ("remainder", torch.remainder(x, y)),
        ("integer_quotient", torch.div(x, y, rounding_mode="trunc")),
    ):
        got = run_everywhere(named(name), [a, b], [dtype] * 2, dtype)
        np.testing.assert_array_equal(got[plain], expected.numpy())
        assert not got[zero].any()
        np.testing.assert_array_equal(got[wraps], 0 if name == "remainder" else np.iinfo(dtype.numpy).min)


def comparable(dtype, rng, count=3000):
    """Pairs of floats: of all exponents, of similar size, and with whole or nearly whole quotients."""
    x = everything(dtype, rng, count // 8)
    pairs = np.array(np.meshgrid(specials(dtype), specials(dtype))).reshape(2, -1)
    a, b = rng.normal(size=(2, count)) * 10
    whole, small = rng.integers(-50, 50, count), rng.integers(-9, 9, count)
    parts = [(x, rng.permutation(x)), pairs, (a, b), (whole, small), (whole * 0.1, small * 0.1)]
    return tuple(np.concatenate([np.asarray(part[i]).astype(dtype.numpy) for part in parts]) for i in (0, 1))


def exact_remainder(a, b):
    """By the definition: the truncated remainder, which is exact, and b added where the signs differ."""
    result = np.empty_like(a)
    for i, (x, y) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        usable = math.isfinite(x) and not math.isnan(y) and y != 0
        rest = math.fmod(x, y) if usable else math.nan
        result[i] = a.dtype.type(rest) + b[i] if rest and (rest < 0) != (y < 0) else rest
    return result


@pytest.mark.parametrize("dtype", FLOATS, **ids)
def test_float_division(dtype, rng):
    a, b = comparable(dtype, rng)
    got = run_everywhere(named("remainder"), [a, b], [dtype] * 2, dtype)
    np.testing.assert_array_equal(pattern(got), pattern(exact_remainder(a, b)))
    # PyTorch's vectors give NaN for the remainder where a/b overflows; elsewhere it agrees.
    theirs = torch.remainder(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    agree = ~np.isnan(theirs)
    np.testing.assert_array_equal(pattern(got)[agree], pattern(theirs)[agree])
    got = run_everywhere(named("floor_divide"), [a, b], [dtype] * 2, dtype)
    expected = torch.floor_divide(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_array_equal(pattern(got), pattern(expected))


@pytest.mark.parametrize("dtype", FLOATS, **ids)
def test_float_powers(dtype, rng):
    a, b = comparable(dtype, rng)
    count = len(a)
    positive = np.exp(rng.normal(size=count)).astype(dtype.numpy)
    near_one = (1 + rng.normal(size=count) * 1e-3).astype(dtype.numpy)
    x = np.concatenate([a, np.abs(a), positive, near_one])
    y = np.concatenate([b, b, *(rng.normal(size=(2, count)) * [[30], [1e4]])]).astype(dtype.numpy)
    got = run_everywhere(named("pow"), [x, y], [dtype] * 2, dtype)
    # The wide reference itself loses digits of float64's large powers; it is good to a thousandth here.
    wide = np.float64 if dtype is dtypes.float32 else np.longdouble
    error = last_places(got, np.power(x.astype(wide), y.astype(wide)))
    worst = error.argmax()
    assert error[worst] <= (0.51 if dtype is dtypes.float32 else 1.0), (x[worst], y[worst], got[worst])
    theirs = torch.pow(torch.from_numpy(x), torch.from_numpy(y)).numpy()
    np.testing.assert_array_equal(np.isnan(got), np.isnan(theirs))
    np.testing.assert_array_equal(np.signbit(got)[theirs == 0], np.signbit(theirs)[theirs == 0])


@pytest.mark.parametrize("dtype", INTEGERS, **ids)
def test_integer_powers(dtype, rng):
    a, b = whole_numbers(dtype, rng)
    got = run_everywhere(named("pow"), [a, b], [dtype] * 2, dtype)
    np.testing.assert_array_equal(got, torch.pow(torch.from_numpy(a), torch.from_numpy(b)).numpy())


# Conversions and random numbers -----------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16], **ids)
def test_sixteen_bit_floats(dtype, rng):
    single, theirs = dtypes.float32, getattr(torch, dtype.name)
    every = np.arange(2**16, dtype=np.uint16)
    widened = run_everywhere(lambda e, v: convert(e.builder, v, dtype, single, e.lanes),
                             [every.view(dtype.numpy)], [dtype], single, single)
    expected = torch.from_numpy(every.view(np.int16)).view(theirs).float().numpy()
    np.testing.assert_array_equal(pattern(widened), pattern(expected))

    few = np.ldexp(rng.integers(-(2**13), 2**13, 30000).astype(np.float32), rng.integers(-30, 8, 30000))
    x = np.concatenate([everything(single, rng), few, expected, np.float32([65504, 65519.996, 65520, 65536])])
    exact = torch.from_numpy(x).to(theirs).view(torch.int16).numpy().view(np.uint16)
    nan, quiet = np.isnan(x), 0x7E00 if dtype is dtypes.float16 else 0x7FC0
    for target, lanes in EVERYWHERE:
        got = run(target, lanes, lambda e, v: convert(e.builder, v, single, dtype, e.lanes),
                  [x], [single], dtype, single).view(np.uint16)
        np.testing.assert_array_equal(got[~nan], exact[~nan])
        assert ((got[nan] & quiet) == quiet).all()


@pytest.mark.parametrize("source", FLOATS, **ids)
@pytest.mark.parametrize("target", INTEGERS, **ids)
def test_floats_to_integers(source, target, rng):
    scales = [rng.normal(size=3000) * 2.0**bits for bits in (8, 31, 63)]
    ends = [2.0**bits + step for bits in (8, 31, 63) for step in (-1, -0.5, 0, 0.5)]
    x = np.concatenate([everything(source, rng), *scales, ends, np.negative(ends)]).astype(source.numpy)
    got = run_everywhere(lambda e, v: convert(e.builder, v, source, target, e.lanes), [x], [source], target)
    smallest = np.iinfo(target.numpy).min
    if target is dtypes.uint8:
        middle = np.where(np.abs(x) < 2.0**63, x, 0).astype(np.int64)
        expected = middle.astype(np.uint8)
    else:
        inside = np.abs(x) < 2.0 ** (8 * target.itemsize - 1)
        expected = np.where(inside, np.where(inside, x, 0).astype(target.numpy), smallest)
    np.testing.assert_array_equal(got, expected)
    inside = np.abs(x) < 2.0**31  # beyond, PyTorch's result is that of the machine
    theirs = torch.from_numpy(x[inside]).to(getattr(torch, target.name)).numpy()
    np.testing.assert_array_equal(got[inside], theirs)


def test_uniform_numbers(rng):
    low, high = rng.integers(-(2**31), 2**31, (2, 3000)).astype(np.int32)
    low[:4], high[:4] = (0, -1, -1, 0), (0, -1, 0, -1)
    for op, words, out in ((elementwise.UNIFORM53, [low, high], dtypes.float64),
                           (elementwise.UNIFORM24, [low], dtypes.float32)):
        got = run_everywhere(named(op.name), words, [dtypes.int32] * len(words), out)
        np.testing.assert_array_equal(got, op.meaning(*words))
        assert got.min() >= 0 and got.max() < 1


def test_normal_numbers(rng):
    words = rng.integers(0, 1 << 24, (2, 3000))
    words[:, :4] = (0, (1 << 24) - 1, 1, 1 << 23)
    first, second = (words * 2.0**-24).astype(np.float32)
    sine = rng.integers(0, 2, 3000).astype(np.float32)
    op = elementwise.NORMAL24
    got = run_everywhere(named(op.name), [first, second, sine], [dtypes.float32] * 3, dtypes.float32)
    np.testing.assert_array_equal(got, op.meaning(first, second, sine))
    assert np.abs(got).max() < 6


# Targets that are not this machine --------------------------------------------------------------------------
@pytest.mark.parametrize("target", [
    *(x86_target(level, "x86_64-unknown-linux-gnu") for level in X86_LEVELS),
    neon_target("aarch64-unknown-linux-gnu"),
], **ids)
def test_nothing_is_called_for_any_number_of_lanes(target):
    unary = (*BOUNDS, "floor", "ceil", "round", "trunc")
    binary = ("pow", "remainder", "floor_divide")

    def all_of_them(e, a, b):
        for name in unary:
            a = e.add(a, getattr(e, name)(b))
        for name in binary:
            a = e.add(a, getattr(e, name)(a, b))
        return e.multiply_add(a, b, a)

    for lanes, dtype in ((3, dtypes.float32), (16, dtypes.float32), (2, dtypes.float64)):
        compiled(target, lanes, all_of_them, [dtype, dtype], dtype)
