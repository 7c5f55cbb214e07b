"""Sixteen float32 as one value in functions that numba compiles.

Plain loops are compiled to vector instructions where the compiler can prove that it may. Kernels
say instead what they mean: LLVM knows vectors of any length and deals them to the registers of the
machine, two of AVX2 or one of AVX-512. A fused multiply-add rounds once, on every machine.

Memory is an address, an integer: nothing checks it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

WIDTH = 16
VECTOR_BYTES = 4 * WIDTH
LINE_BYTES = 64
"""Of a cache."""

f32 = np.float32

_INT, _LONG = ir.IntType(32), ir.IntType(64)
FLOATS = ir.VectorType(ir.FloatType(), WIDTH)
INTS = ir.VectorType(_INT, WIDTH)

Code = Callable[[Any, ir.IRBuilder, Any, Any], Any]


class _Vector(types.Type):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name="vector")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, FLOATS)


vector = _Vector()


def loading(builder: ir.IRBuilder, address: Any, kind: ir.Type, align: int) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def _loading(kind: ir.Type, align: int) -> Code:
    return lambda context, builder, signature, arguments: loading(
        builder, arguments[0], kind, align
    )


@intrinsic
def load(context, address):
    """Sixteen float32."""
    return vector(types.intp), _loading(FLOATS, 4)


@intrinsic
def load_one(context, address):
    """One float32."""
    return types.float32(types.intp), _loading(FLOATS.element, 4)


@intrinsic
def load_index(context, address):
    """One int64."""
    return types.int64(types.intp), _loading(_LONG, 8)


def _storing(align: int, form: Callable[[ir.IRBuilder, Any], Any] = lambda _, x: x) -> Code:
    """Stores a value in the form that `form` gives it."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        value = form(builder, arguments[1])
        builder.store(value, builder.inttoptr(arguments[0], value.type.as_pointer()), align=align)
        return context.get_dummy_value()

    return code


@intrinsic
def store(context, address, x):
    return types.void(types.intp, vector), _storing(4)


@intrinsic
def store_one(context, address, x):
    return types.void(types.intp, types.float32), _storing(4)


def _rounded(builder: ir.IRBuilder, x: Any) -> Any:
    """float32 to the nearest bfloat16, of two the even one. What is no number stays none."""

    def same(value: int) -> Any:
        return INTS([value] * WIDTH)

    whole = builder.bitcast(x, INTS)
    odd = builder.and_(builder.lshr(whole, same(16)), same(1))
    nearest = builder.lshr(builder.add(whole, builder.add(odd, same(0x7FFF))), same(16))
    number = builder.fcmp_ordered("==", x, x)
    shorts = ir.VectorType(ir.IntType(16), WIDTH)
    return builder.trunc(builder.select(number, nearest, same(0x7FC0)), shorts)


@intrinsic
def _store_bfloat16(context, address, x):
    """Sixteen, rounded."""
    return types.void(types.intp, vector), _storing(2, _rounded)


@njit(inline="always")
def store_kept(base, index, x, value_bytes):
    """Sixteen values as those of the KV cache, float32 or bfloat16, from `index` on."""
    if value_bytes == 2:
        _store_bfloat16(base + 2 * index, x)
    else:
        store(base + 4 * index, x)


@intrinsic
def _scatter(context, address, distance, x):
    def code(context, builder, signature, arguments):
        _apart(builder, arguments[0], arguments[1], arguments[2])
        return context.get_dummy_value()

    return types.void(types.intp, types.int64, vector), code


@intrinsic
def _scatter_pairs(context, address, distance, x):
    def code(context, builder, signature, arguments):
        pairs = builder.bitcast(_rounded(builder, arguments[2]), ir.VectorType(_INT, WIDTH // 2))
        _apart(builder, arguments[0], arguments[1], pairs)
        return context.get_dummy_value()

    return types.void(types.intp, types.int64, vector), code


def _apart(builder: ir.IRBuilder, address: Any, distance: Any, x: Any) -> None:
    """Stores each element of x, `distance` bytes from the one before."""
    for lane in range(x.type.count):
        to = builder.add(address, builder.mul(distance, _LONG(lane)))
        pointer = builder.inttoptr(to, x.type.element.as_pointer())
        builder.store(builder.extract_element(x, _INT(lane)), pointer, align=4)


@njit(inline="always")
def scatter_kept(address, distance, x, value_bytes):
    """Sixteen values as those of the KV cache, four bytes of them in each place."""
    if value_bytes == 2:
        _scatter_pairs(address, distance, x)
    else:
        _scatter(address, distance, x)


@intrinsic
def store_pairs(context, address, x, y):
    """The elements of x and y in turn, rounded to bfloat16."""

    def code(context, builder, signature, arguments):
        address, *both = arguments
        first, second = (builder.zext(_rounded(builder, one), INTS) for one in both)
        pairs = builder.or_(first, builder.shl(second, INTS([16] * WIDTH)))
        builder.store(pairs, builder.inttoptr(address, INTS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, vector, vector), code


@intrinsic
def store_seconds(context, address, y):
    """The same where x stays as it is."""

    def code(context, builder, signature, arguments):
        address, y = arguments
        firsts = builder.and_(loading(builder, address, INTS, 4), INTS([0xFFFF] * WIDTH))
        seconds = builder.shl(builder.zext(_rounded(builder, y), INTS), INTS([16] * WIDTH))
        pointer = builder.inttoptr(address, INTS.as_pointer())
        builder.store(builder.or_(firsts, seconds), pointer, align=4)
        return context.get_dummy_value()

    return types.void(types.intp, vector), code


@intrinsic
def take(context, pointer, counter):
    """The next number of the int64 counter at index `counter` behind `pointer`, from 0: each goes
    to one thread."""

    def code(context, builder, signature, arguments):
        counters = builder.bitcast(arguments[0], _LONG.as_pointer())
        return builder.atomic_rmw(
            "add", builder.gep(counters, [arguments[1]]), _LONG(1), "monotonic"
        )

    return types.int64(pointer, types.int64), code


def prefetching(builder: ir.IRBuilder, address: Any) -> None:
    """Asks for a line of memory that will be read soon, to be kept in the second cache: the first
    one has no room beside what a tile reads. The address need not be one."""
    kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(), _INT, _INT, _INT])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    read, second, data = _INT(0), _INT(2), _INT(1)
    builder.call(function, [builder.inttoptr(address, ir.PointerType()), read, second, data])


@intrinsic
def splat(context, x):
    """The same number sixteen times."""

    def code(context, builder, signature, arguments):
        return splatted(builder, arguments[0], FLOATS)

    return vector(types.float32), code


def splatted(builder: ir.IRBuilder, one: Any, kind: ir.Type) -> Any:
    nothing = kind(ir.Undefined)
    first = builder.insert_element(nothing, one, _INT(0))
    return builder.shuffle_vector(first, nothing, INTS([0] * WIDTH))


@intrinsic
def fma(context, x, y, z):
    """x * y + z, rounded once."""
    return vector(vector, vector, vector), _calling("llvm.fma.v16f32")


@intrinsic
def nearest(context, x):
    """Rounded to whole numbers."""
    return vector(vector), _calling("llvm.rint.v16f32")


def calling(builder: ir.IRBuilder, name: str, arguments: Any) -> Any:
    """A function of LLVM's, of vectors of one type."""
    kind = ir.FunctionType(FLOATS, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _calling(name: str) -> Code:
    return lambda context, builder, signature, arguments: calling(builder, name, arguments)


@intrinsic
def _add(context, x, y):
    return vector(vector, vector), lambda context, builder, signature, two: builder.fadd(*two)


@intrinsic
def _multiply(context, x, y):
    return vector(vector, vector), lambda context, builder, signature, two: builder.fmul(*two)


@intrinsic
def _divide(context, x, y):
    return vector(vector, vector), lambda context, builder, signature, two: builder.fdiv(*two)


def _overload(symbol: Any, function: Any) -> None:
    def typed(x, y):
        def operation(x, y):
            return function(x, y)

        return operation if x == y == vector else None

    overload(symbol)(typed)


_overload(operator.add, _add)
_overload(operator.mul, _multiply)
_overload(operator.truediv, _divide)


@intrinsic
def maximum(context, x, y):
    """The larger ones; those of `y` where one is no number."""

    def code(context, builder, signature, two):
        return builder.select(builder.fcmp_ordered(">", *two), *two)

    return vector(vector, vector), code


@intrinsic
def minimum(context, x, y):
    """The smaller ones; those of `y` where one is no number."""

    def code(context, builder, signature, two):
        return builder.select(builder.fcmp_ordered("<", *two), *two)

    return vector(vector, vector), code


@intrinsic
def first(context, count, x, y):
    """The first `count` of x, and the others of y."""

    def code(context, builder, signature, arguments):
        count = splatted(builder, builder.trunc(arguments[0], _INT), INTS)
        return builder.select(
            builder.icmp_signed("<", INTS(list(range(WIDTH))), count), *arguments[1:]
        )

    return vector(types.int64, vector, vector), code


@intrinsic
def _power_of_two(context, x):
    """2 to whole numbers from -126 to 127: the exponent of a float32."""

    def code(context, builder, signature, arguments):
        exponents = builder.add(builder.fptosi(arguments[0], INTS), INTS([127] * WIDTH))
        return builder.bitcast(builder.shl(exponents, INTS([23] * WIDTH)), FLOATS)

    return vector(vector), code


@intrinsic
def _lane(context, x, index):
    def code(context, builder, signature, arguments):
        return builder.extract_element(arguments[0], builder.trunc(arguments[1], _INT))

    return types.float32(vector, types.int64), code


_SMALLEST, _LARGEST = f32(-87.0), f32(88.0)
_LOG2_E = f32(1.4426950408889634)
# ln 2 as a number with few digits and the rest: multiples of the first are exact.
_LN2_HIGH, _LN2_LOW = f32(0.693359375), f32(-2.12194440e-4)


@njit
def exp(x):
    """To a relative error under 2e-7; what lies beyond float32 becomes the nearest that it holds.
    The polynomial is that of Cephes' `expf`."""
    bounded = minimum(splat(_LARGEST), maximum(splat(_SMALLEST), x))
    halvings = nearest(bounded * splat(_LOG2_E))
    rest = fma(halvings, splat(-_LN2_HIGH), bounded)
    rest = fma(halvings, splat(-_LN2_LOW), rest)
    y = splat(f32(1.9875691500e-4))
    y = fma(y, rest, splat(f32(1.3981999507e-3)))
    y = fma(y, rest, splat(f32(8.3334519073e-3)))
    y = fma(y, rest, splat(f32(4.1665795894e-2)))
    y = fma(y, rest, splat(f32(1.6666665459e-1)))
    y = fma(y, rest, splat(f32(5.0000001201e-1)))
    y = fma(y, rest * rest, rest) + splat(f32(1))
    return y * _power_of_two(halvings)


_P = f32(0.3275911 / 2**0.5)
_A = tuple(f32(a / 2) for a in (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429))


@njit
def silu(x):
    """x times its logistic function."""
    one = splat(f32(1))
    return x / (one + exp(x * splat(f32(-1))))


@njit
def gelu(x):
    """x times the normal distribution below it, to an error under 1e-7 times x. The polynomial is
    7.1.26 of Abramowitz and Stegun."""
    size = maximum(x, x * splat(f32(-1)))
    t = splat(f32(1)) / fma(size, splat(_P), splat(f32(1)))
    tail = splat(_A[4])
    for index in (3, 2, 1, 0):
        tail = fma(tail, t, splat(_A[index]))
    tail = tail * t * exp(x * x * splat(f32(-0.5)))
    return fma(size * splat(f32(-1)), tail, maximum(x, splat(f32(0))))


@njit
def largest(x):
    """Of sixteen."""
    found = _lane(x, 0)
    for index in range(1, WIDTH):
        found = max(found, _lane(x, index))
    return found


@njit
def total(x):
    """Of sixteen, added up in order."""
    found = _lane(x, 0)
    for index in range(1, WIDTH):
        found += _lane(x, index)
    return found
