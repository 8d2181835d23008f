"""Programs in CUDA: kernels, and a function of the serial signature that launches them on device arrays."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpctrain.tasks.programs_tree import (
    Binary,
    Call,
    Count,
    Element,
    Expr,
    For,
    If,
    Index,
    Name,
    Parameter,
    Program,
    Set,
    Share,
    Statement,
    Update,
    divided,
    statements,
)
from hpctrain.tasks.render import Style
from hpctrain.tasks.render_c import CRenderer

_TYPES = {"real": "double", "int": "int"}
_TILE = 16


def suits_cuda(program: Program) -> bool:
    """Whether the renderer can write a program for a device: there is none for prefix scans."""
    return not any(loop.share and loop.share.scan for loop in divided(program))


class CudaRenderer(CRenderer):
    """One kernel for each divided loop, a thread for each of its iterations. Pointers are device memory."""

    def __init__(self, program: Program, style: Style) -> None:
        super().__init__(program, style, "cuda", "cuda")
        self.kernels: list[str] = []
        self.in_kernel = False

    def text(self) -> str:
        """The whole file."""
        self.depth, self.scopes = 1, [set()]
        self.body(self.program.body)
        if self.program.result:
            self.line(f"return {self.program.result};")
        body, self.lines, self.depth = self.lines, [], 0
        self.open(self.signature())
        partial = any(loop.share and loop.share.reductions for loop in divided(self.program))
        includes = ["#include <cuda_runtime.h>", *(["#include <vector>"] if partial else [])]
        includes = [
            *(["#include <cmath>"] if "std::" in "\n".join([*body, *self.kernels]) else []),
            *includes,
        ]
        return "\n".join([*includes, "", *self.kernels, *self.lines, *body, "}"]) + "\n"

    def atom(self, expr: Expr) -> str:
        """As in C++, but device code calls the global functions."""
        if isinstance(expr, Call) and self.in_kernel:
            name = {"abs": "fabs", "max": "fmax", "min": "fmin"}.get(expr.function, expr.function)
            return f"{name}({', '.join(self.expr(argument) for argument in expr.arguments)})"
        return super().atom(expr)

    def statement(self, statement: Statement) -> None:
        """In a kernel shared elements are updated atomically; outside, the host cannot touch an array."""
        if isinstance(statement, For) and statement.share is None and not self.in_kernel:
            if not self.clear(statement):
                super().statement(statement)
        elif isinstance(statement, Update) and statement.shared and self.in_kernel:
            self.line(f"atomicAdd(&{self.atom(statement.target)}, {self.expr(statement.value)});")
        else:
            super().statement(statement)

    def clear(self, loop: For) -> bool:
        """Write a loop that zeroes an array as cudaMemset; False if it is another loop."""
        first = loop.body[0]
        if not (isinstance(first, Set) and isinstance(first.target, Element) and len(loop.body) == 1):
            return False
        kind = _TYPES[self.program.type_of(first.target.array)]
        self.line(f"cudaMemset({first.target.array}, 0, sizeof({kind}) * {self.index(loop.high)});")
        return True

    def divided_loop(self, loop: For, share: Share) -> None:
        """Launch a kernel; what threads reduced by blocks is combined on the host."""
        number = 1 + sum("__global__" in line for line in self.kernels)
        name = f"{self.program.name}_kernel{number if len(divided(self.program)) > 1 else ''}"
        used = names_in(loop)
        reduced = [scalar for _, scalar in share.reductions]
        names = used.scalars | used.arrays | extents_in(self.program, used.arrays)
        parameters = [p for p in self.program.parameters if p.name in names]
        temps = [
            n for n, _ in self.program.locals if n in used.scalars and n not in (*reduced, *share.private)
        ]
        starts = [n for op, n in share.reductions if op != "+"]
        self.kernel(name, loop, share, parameters, [*temps, *starts])
        blocks, arguments = self.grid(loop, share), [*(p.name for p in parameters), *temps, *starts]
        for scalar in reduced:
            self.line(f"double *part_{scalar};")
            self.line(f"cudaMalloc(&part_{scalar}, sizeof(double) * blocks);")
            arguments.append(f"part_{scalar}")
        threads = "threads" if self.is_flat(share) else str(self.style.block)
        self.line(f"{name}<<<{blocks}, {threads}>>>({', '.join(arguments)});")
        for op, scalar in share.reductions:
            self.line(f"std::vector<double> host_{scalar}(blocks);")
            size = "sizeof(double) * blocks"
            self.line(f"cudaMemcpy(host_{scalar}.data(), part_{scalar}, {size}, cudaMemcpyDeviceToHost);")
            self.line(f"cudaFree(part_{scalar});")
            self.open(f"for (int b = 0; b < blocks; {'b++' if self.style.post_increment else '++b'})")
            self.combine(scalar, op, f"host_{scalar}[b]")
            self.close()

    def combine(self, target: str, op: str, value: str) -> None:
        """target = target op value."""
        if op == "+":
            self.line(f"{target} += {value};")
        else:
            self.line(f"{target} = {'fmax' if op == 'max' else 'fmin'}({target}, {value});")

    def is_flat(self, share: Share) -> bool:
        """Whether two nested loops become a grid of two dimensions."""
        return share.collapse == 2 and self.style.collapse and not share.reductions

    def blocks(self, loop: For, threads: int) -> str:
        """How many blocks of threads a loop needs."""
        count = self.index(Index(loop.high.terms, loop.high.const - loop.low.const))
        return f"({count} + {threads - 1}) / {threads}"

    def grid(self, loop: For, share: Share) -> str:
        """Number of blocks; a variable where results come by blocks, or where there are two dimensions."""
        inner = loop.body[0]
        if self.is_flat(share) and isinstance(inner, For):
            if not any("threads" in scope for scope in self.scopes):
                self.line(f"dim3 threads({_TILE}, {_TILE});")
                self.scopes[-1].add("threads")
            return f"dim3({self.blocks(inner, _TILE)}, {self.blocks(loop, _TILE)})"
        text = self.blocks(loop, self.style.block)
        if not share.reductions:
            return text
        if not any("blocks" in scope for scope in self.scopes):
            self.line(f"int blocks = {text};")
            self.scopes[-1].add("blocks")
        return "blocks"

    def kernel(
        self, name: str, loop: For, share: Share, parameters: list[Parameter], values: list[str]
    ) -> None:
        """Write a kernel beside the lines of the host."""
        host, scopes = (self.lines, self.depth), self.scopes
        self.lines, self.depth, self.in_kernel = [], 0, True
        self.scopes = [{n for _, n in share.reductions} | set(values)]
        arguments = [
            f"{_const(p, loop)}{_TYPES[p.type]} {'*' if p.extents else ''}{p.name}" for p in parameters
        ]
        arguments += [f"double {value}" for value in values]
        arguments += [f"double *part_{scalar}" for _, scalar in share.reductions]
        self.open(f"__global__ void {name}({', '.join(arguments)})")
        for op, scalar in share.reductions:
            self.line(f"__shared__ double all_{scalar}[{self.style.block}];")
            if op == "+":
                self.line(f"double {scalar} = 0.0;")
        inner = loop.body[0]
        if self.is_flat(share) and isinstance(inner, For):
            self.place(inner, "x")
            self.place(loop, "y")
            self.open(f"if ({_below(self, loop)} && {_below(self, inner)})")
            self.block(inner.body)
        else:
            self.place(loop, "x")
            self.open(f"if ({_below(self, loop)})")
            self.block(loop.body)
        self.close()
        self.reduce_block(share)
        self.close()
        self.kernels += [*self.lines, ""]
        (self.lines, self.depth), self.scopes, self.in_kernel = host, scopes, False

    def place(self, loop: For, axis: str) -> None:
        """The iteration that is this thread's."""
        low, start = self.index(loop.low), f"blockIdx.{axis} * blockDim.{axis} + threadIdx.{axis}"
        self.line(f"int {loop.variable} = {start if low == '0' else f'{low} + {start}'};")

    def reduce_block(self, share: Share) -> None:
        """Combine what the threads of a block have in shared memory, halving each time."""
        if not share.reductions:
            return
        for _, scalar in share.reductions:
            self.line(f"all_{scalar}[threadIdx.x] = {scalar};")
        self.line("__syncthreads();")
        self.open("for (int half = blockDim.x / 2; half > 0; half /= 2)")
        self.open("if (threadIdx.x < half)")
        for op, scalar in share.reductions:
            self.combine(f"all_{scalar}[threadIdx.x]", op, f"all_{scalar}[threadIdx.x + half]")
        self.close()
        self.line("__syncthreads();")
        self.close()
        self.open("if (threadIdx.x == 0)")
        for _, scalar in share.reductions:
            self.line(f"part_{scalar}[blockIdx.x] = all_{scalar}[0];")
        self.close()


@dataclass
class Used:
    """Names that a piece of a program mentions."""

    scalars: set[str] = field(default_factory=set)
    arrays: set[str] = field(default_factory=set)


def names_in(node: object) -> Used:
    """Scalars (sizes and loop variables too) and arrays below a node of a tree."""
    used = Used()

    def visit(node: object) -> None:
        if isinstance(node, Name):
            used.scalars.add(node.name)
        elif isinstance(node, Index):
            used.scalars.update(name for name, _ in node.terms)
        elif isinstance(node, Count):
            visit(node.index)
        elif isinstance(node, Element):
            used.arrays.add(node.array)
            for index in node.index:
                visit(index)
        elif isinstance(node, Binary | If):
            visit(node.left)
            visit(node.right)
            for inner in (*node.then, *node.otherwise) if isinstance(node, If) else ():
                visit(inner)
        elif isinstance(node, Call):
            for argument in node.arguments:
                visit(argument)
        elif isinstance(node, Set | Update):
            visit(node.target)
            visit(node.value)
        elif isinstance(node, For):
            for part in (node.low, node.high, *node.body):
                visit(part)

    visit(node)
    return used


def extents_in(program: Program, arrays: set[str]) -> set[str]:
    """Sizes that the subscripts of flat arrays need."""
    return {
        name
        for p in program.parameters
        if p.name in arrays
        for extent in p.extents[1:]
        for name, _ in extent.terms
    }


def _const(parameter: Parameter, loop: For) -> str:
    written = {
        s.target.array
        for s in statements(loop.body)
        if isinstance(s, Set | Update) and isinstance(s.target, Element)
    }
    return "const " if parameter.extents and parameter.name not in written else ""


def _below(write: CudaRenderer, loop: For) -> str:
    return f"{loop.variable} < {write.index(loop.high)}"
