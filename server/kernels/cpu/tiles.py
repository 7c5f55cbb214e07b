"""Products of a few rows with a few panels of a matrix, in registers.

A panel is sixteen outputs. In bfloat16 and 8 bits its inputs lie pair by pair: both weights of the
first output, both of the second, and so on. That is how the instruction for products of bfloat16
wants them, and widening such pairs to float32 takes two operations. Each number's sum runs over the
inputs in order, so it is the same in a tile of any size.

The code of a tile is written by Python loops over its rows and panels: the compiler keeps a sum in
a register only if it has a name of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from server.kernels.cpu.vectors import (
    FLOATS,
    INTS,
    VECTOR_BYTES,
    WIDTH,
    calling,
    loading,
    prefetching,
    splatted,
)

_FEATURES = binding.get_host_cpu_features()

SIZES = {1: 4, 2: 4, 4: 4, 6: 4} if _FEATURES.get("avx512f") else {1: 2, 2: 2, 4: 1, 6: 1}
"""Panels of a tile by its rows: as many sums as there are registers for. With more rows there would
be none left for their addresses."""

ROWS, PANELS = max(SIZES), max(SIZES.values())

PAGED_SIZES = (1, 4, 6)
"""Attention is content with fewer: each takes its time to compile."""

_INT, _LONG = ir.IntType(32), ir.IntType(64)
_PAIR_OF_BYTES = ir.VectorType(ir.IntType(8), 2 * WIDTH)
_FIRST, _SECOND = (INTS(list(range(part, 2 * WIDTH, 2))) for part in range(2))


class _BFloat16(ir.Type):  # type: ignore[misc]
    """LLVM's own, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat16)

    def __hash__(self) -> int:
        return hash(_BFloat16)


_PAIRS = ir.VectorType(_BFloat16(), 2 * WIDTH)


def multiplies_bfloat16() -> bool:
    """Whether this CPU has an instruction for it."""
    return bool(_FEATURES.get("avx512bf16"))


@dataclass(frozen=True, slots=True)
class Form:
    """What is multiplied.

    Rows of float32 meet weights widened to that, and each product is added with one rounding. Rows
    of bfloat16 meet weights in bfloat16, two inputs at a time, and are added up in float32.
    """

    row_bytes: int
    """Of an input of a row: 4 for float32, 2 for bfloat16."""
    weight_bytes: int
    """4 for float32, 2 for bfloat16, 1 for integers of 8 bits, which bfloat16 holds as well."""

    @property
    def together(self) -> int:
        """Inputs of a panel that lie side by side."""
        return inputs_together(self.weight_bytes)


def inputs_together(weight_bytes: int) -> int:
    return 1 if weight_bytes == 4 else 2


def compiled(form: Form, kind: str = "") -> Callable[[Any], Any]:
    """`njit` for functions that are defined once for each form, and perhaps kind of tile.

    Their names tell them apart. numba would do so by numbers of this process, and code that another
    process has compiled, and kept, has numbers of that one: it would call what it finds under them.
    """

    def compile_(function: Any) -> Any:
        function.__qualname__ += f"_{form.row_bytes}_{form.weight_bytes}_{kind}"
        return njit(function)

    return compile_


Order = Literal["side by side", "one a page", "page by page"]
"""Where a tile's panels lie: side by side; each in a page of its own, somewhere; or side by side in
each of many pages, which together have the inputs."""


@cache
def tile_of(form: Form, order: Order = "side by side") -> Any:
    """A function that compiled ones call: of how many panels there are, of the tile's rows, from 1
    to `ROWS`, and of what `_Tile.write` takes besides. It returns how many panels it multiplied,
    which depends on these two alone."""
    wanted = SIZES if order == "side by side" else PAGED_SIZES
    return _chosen(form, order, [(rows, SIZES[rows]) for rows in SIZES if rows in wanted])


def _chosen(form: Form, order: Order, sizes: Sequence[tuple[int, int]]) -> Any:
    """Of those sizes the smallest that has `size` rows."""
    rows, panels = sizes[0]
    one = _intrinsic(_Tile(rows, 1, form, order))
    several = one if panels == 1 else _intrinsic(_Tile(rows, panels, form, order))
    larger: Any = _chosen(form, order, sizes[1:]) if len(sizes) > 1 else None

    @compiled(form, f"{order}_{rows}")
    def fitting(left, size, *arguments):
        if left < panels:
            one(*arguments)
            return 1
        several(*arguments)
        return panels

    @compiled(form, f"{order}_{rows}")
    def choose(left, size, *arguments):
        if size <= rows:
            return fitting(left, size, *arguments)
        return larger(left, size, *arguments)

    return fitting if larger is None else choose


def _intrinsic(tile: _Tile) -> Any:
    @intrinsic
    def write(
        context,
        count,
        x,
        row_bytes,
        weights,
        stride,
        steps,
        to,
        to_bytes,
        begun,
        scales,
        bias,
        ahead,
        tables,
        pages,
    ):
        def code(context, builder, signature, arguments):
            tile.write(builder, *arguments)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 14), code

    return write


@dataclass(frozen=True, slots=True)
class _Tile:
    """Writes the code for tiles of one size."""

    rows: int
    panels: int
    form: Form
    order: Order

    def write(
        self,
        builder: ir.IRBuilder,
        count: Any,
        x: Any,
        row_bytes: Any,
        weights: Any,
        stride: Any,
        steps: Any,
        to: Any,
        to_bytes: Any,
        begun: Any,
        scales: Any,
        bias: Any,
        ahead: Any,
        tables: Any,
        pages: Any,
    ) -> None:
        """All arguments are integers, most of them addresses.

        Args:
            count: of rows that are there; the last one stands in for the others.
            row_bytes, to_bytes: from a row of x or of the result to the next one.
            stride: from a panel to the next one, or from a page.
            steps: over the inputs, or those of a page, each over those that lie together.
            begun: whether the result holds what inputs before these gave.
            scales, bias: of each output, where they are not 0.
            ahead: a panel that is asked for meanwhile, where it is not 0.
            tables: numbers of the pages, of which there are as many as `pages` says.
        """
        last = builder.sub(count, _LONG(1))
        numbers = [_least(builder, _LONG(row), last) for row in range(self.rows)]
        rows = [_behind(builder, x, row_bytes, number) for number in numbers]
        results = [_behind(builder, to, to_bytes, number) for number in numbers]
        zero = FLOATS([0.0] * WIDTH)
        sums = [
            [cgutils.alloca_once_value(builder, zero) for _ in range(self.panels)] for _ in rows
        ]  # registers: nothing takes their addresses

        def change(operation: Callable[[Any, int, int], Any]) -> None:
            for row, of_row in enumerate(sums):
                for panel, one in enumerate(of_row):
                    builder.store(operation(builder.load(one), row, panel), one)

        def result(row: int, panel: int) -> Any:
            return builder.add(results[row], _LONG(panel * VECTOR_BYTES))

        def each(address: Any, panel: int) -> Any:
            return _floats(builder, builder.add(address, _LONG(panel * VECTOR_BYTES)))

        change(lambda *_: zero)
        with _if_given(builder, begun):
            change(lambda _, row, panel: _floats(builder, result(row, panel)))

        def add_up(inputs: Sequence[Any], panels: Sequence[Any], wanted: Sequence[Any]) -> None:
            """All steps over panels, while others are asked for."""
            with cgutils.for_range(builder, steps) as loop:
                step = _LONG(self.form.together * WIDTH * self.form.weight_bytes)
                places = [_behind(builder, panel, step, loop.index) for panel in panels]
                row_step = _LONG(self.form.together * self.form.row_bytes)
                at = [_behind(builder, row, row_step, loop.index) for row in inputs]
                for add in self._additions(builder, at, places):
                    change(add)
                for address in wanted:
                    with _if_given(builder, address):
                        prefetching(builder, _behind(builder, address, step, loop.index))

        def page(number: Any) -> Any:
            """Where it is; of the last one, if there are no more."""
            number = _least(builder, number, builder.sub(pages, _LONG(1)))
            place = loading(builder, _behind(builder, tables, _LONG(8), number), _LONG, 8)
            return _behind(builder, weights, stride, place)

        several = range(self.panels)
        if self.order == "side by side":
            panels = [_behind(builder, weights, stride, _LONG(panel)) for panel in several]
            add_up(rows, panels, [ahead])
        elif self.order == "one a page":
            panels = [page(_LONG(panel)) for panel in several]
            add_up(rows, panels, [page(_LONG(panel + self.panels)) for panel in several])
        else:
            panel_bytes = WIDTH * WIDTH * self.form.weight_bytes
            inputs_bytes = builder.mul(steps, _LONG(self.form.together * self.form.row_bytes))
            with cgutils.for_range(builder, pages) as loop:
                inputs = [_behind(builder, row, inputs_bytes, loop.index) for row in rows]
                this, following = page(loop.index), page(builder.add(loop.index, _LONG(1)))
                panels, wanted = (
                    [builder.add(begin, _LONG(panel * panel_bytes)) for panel in several]
                    for begin in (this, following)
                )
                add_up(inputs, panels, wanted)
        with _if_given(builder, scales):
            change(lambda total, _, panel: builder.fmul(total, each(scales, panel)))
        with _if_given(builder, bias):
            change(lambda total, _, panel: builder.fadd(total, each(bias, panel)))
        for row, of_row in enumerate(sums):
            for panel, one in enumerate(of_row):
                pointer = builder.inttoptr(result(row, panel), FLOATS.as_pointer())
                builder.store(builder.load(one), pointer, align=4)

    def _additions(
        self, builder: ir.IRBuilder, inputs: Sequence[Any], places: Sequence[Any]
    ) -> list[Callable[[Any, int, int], Any]]:
        """What is added to each sum in a step: all at once, or one after the other."""
        if self.form.row_bytes == 2:
            pairs = [self._paired(builder, place) for place in places]
            spread = [
                builder.bitcast(splatted(builder, loading(builder, at, _INT, 2), INTS), _PAIRS)
                for at in inputs
            ]
            name = "llvm.x86.avx512bf16.dpbf16ps.512"
            return [lambda t, row, panel: calling(builder, name, [t, spread[row], pairs[panel]])]
        each = [self._widened(builder, place) for place in places]
        parts = range(self.form.together)
        return [partial(self._multiply, builder, inputs, each, part) for part in parts]

    @staticmethod
    def _multiply(
        builder: ir.IRBuilder,
        inputs: Sequence[Any],
        weights: Sequence[Sequence[Any]],
        part: int,
        total: Any,
        row: int,
        panel: int,
    ) -> Any:
        at = builder.add(inputs[row], _LONG(4 * part))
        spread = splatted(builder, loading(builder, at, FLOATS.element, 4), FLOATS)
        return calling(builder, "llvm.fma.v16f32", [spread, weights[panel][part], total])

    def _widened(self, builder: ir.IRBuilder, address: Any) -> Sequence[Any]:
        """Weights of a step's inputs, as float32."""
        if self.form.weight_bytes == 4:
            return [_floats(builder, address)]
        if self.form.weight_bytes == 2:
            pairs = loading(builder, address, INTS, 2)
            first = builder.shl(pairs, INTS([16] * WIDTH))
            second = builder.and_(pairs, INTS([0xFFFF0000] * WIDTH))
            return [builder.bitcast(half, FLOATS) for half in (first, second)]
        pairs = loading(builder, address, _PAIR_OF_BYTES, 1)
        halves = [builder.shuffle_vector(pairs, pairs, part) for part in (_FIRST, _SECOND)]
        return [builder.sitofp(builder.sext(half, INTS), FLOATS) for half in halves]

    def _paired(self, builder: ir.IRBuilder, address: Any) -> Any:
        """The same of a pair, as bfloat16."""
        if self.form.weight_bytes == 2:
            return loading(builder, address, _PAIRS, 2)
        pairs = loading(builder, address, _PAIR_OF_BYTES, 1)
        floats = builder.sitofp(pairs, ir.VectorType(FLOATS.element, 2 * WIDTH))
        return builder.fptrunc(floats, _PAIRS)


def _behind(builder: ir.IRBuilder, address: Any, size: Any, count: Any) -> Any:
    return builder.add(address, builder.mul(size, count))


def _least(builder: ir.IRBuilder, x: Any, y: Any) -> Any:
    return builder.select(builder.icmp_signed("<", x, y), x, y)


def _floats(builder: ir.IRBuilder, address: Any) -> Any:
    return loading(builder, address, FLOATS, 4)


def _if_given(builder: ir.IRBuilder, address: Any) -> Any:
    return builder.if_then(builder.icmp_signed("!=", address, _LONG(0)))
