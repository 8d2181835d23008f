"""CUDA renderings run on threads of the host: a device is not needed to see that the kernels are right."""

from __future__ import annotations

import random
import re

import pytest

from hpctrain.sandbox.run import Limits, Sandbox
from hpctrain.sandbox.toolchain import build, execute, why_missing
from hpctrain.tasks.programs_check import draw_sizes
from hpctrain.tasks.programs_draw import Draw
from hpctrain.tasks.programs_driver import difference, driver
from hpctrain.tasks.programs_grammar import PRODUCTIONS
from hpctrain.tasks.programs_tree import Program
from hpctrain.tasks.render import Style, draw_style
from hpctrain.tasks.render_c import CRenderer
from hpctrain.tasks.renderers import renderer, suits

# What of the CUDA runtime the renderings use: blocks one after the other, the threads of a block at once.
HOST = r"""
#include <barrier>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>
struct dim3 { int x, y; dim3(int x = 1, int y = 1) : x(x), y(y) {} };
static thread_local dim3 threadIdx(0, 0);
static dim3 blockIdx, blockDim;
static std::barrier<> *at_barrier;
enum { cudaMemcpyDeviceToHost };
#define __global__ static
#define __shared__ static
static void __syncthreads() { at_barrier->arrive_and_wait(); }
template <typename T> void cudaMalloc(T **p, size_t size) { *p = (T *)malloc(size); }
static void cudaFree(void *p) { free(p); }
static void cudaMemset(void *p, int value, size_t size) { memset(p, value, size); }
static void cudaMemcpy(void *to, const void *from, size_t size, int) { memcpy(to, from, size); }
static void atomicAdd(int *p, int value) { __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST); }
static void atomicAdd(double *p, double value)
{
    static std::barrier<> *unused;
    static char lock;
    (void)unused;
    while (__atomic_test_and_set(&lock, __ATOMIC_ACQUIRE)) {}
    *p += value;
    __atomic_clear(&lock, __ATOMIC_RELEASE);
}
template <typename Kernel, typename... Arguments>
void launch(dim3 grid, dim3 block, Kernel kernel, Arguments... arguments)
{
    blockDim = block;
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
            std::barrier<> barrier(block.x * block.y);
            at_barrier = &barrier;
            std::vector<std::thread> team;
            for (int y = 0; y < block.y; ++y)
                for (int x = 0; x < block.x; ++x)
                    team.emplace_back([=] { threadIdx = dim3(x, y); kernel(arguments...); });
            for (auto &thread : team)
                thread.join();
        }
}
"""
MAIN = """
int main(int argc, char **argv)
{
    int (*run[])(int, char **) = {%s};
    return run[atoi(argv[1])](argc - 1, argv + 1);
}
"""
# Time too: a thread is made for every one of the device.
LIMITS = Limits(seconds=60, processes=600)


@pytest.mark.skipif(bool(why_missing("cpp")), reason="no g++")
def test_kernels_compute_what_the_serial_code_computes(tmp_path_factory: pytest.TempPathFactory) -> None:
    programs = [make(Draw(f"cuda {number}")) for number, make in enumerate(PRODUCTIONS)]
    programs = [program for program in programs if suits(program, "cuda")]
    assert len(programs) == len(PRODUCTIONS) - 1
    parts = [HOST, "#include <algorithm>", "#include <cstdio>"]
    for number, program in enumerate(programs):
        style = draw_style(random.Random(number))
        main = driver(program, "cpp", False, CRenderer(program, style, "serial", "cpp"))
        for name, text in (
            ("plain", renderer(program, style, "cpp").text()),
            ("kernels", in_cuda(program, style)),
        ):
            unit = re.sub(r"(?m)^#include.*$", "", f"{text}\n{main}").replace("int main(", "int run(")
            parts.append(f"namespace {name}{number} {{\n{unit}\n}}")
    runs = [f"{name}{number}::run" for number in range(len(programs)) for name in ("plain", "kernels")]
    place, sandbox = tmp_path_factory.mktemp("cuda"), Sandbox()
    (place / "all.cc").write_text("\n".join([*parts, MAIN % ", ".join(runs)]), encoding="utf-8")
    built = build(sandbox, place, ["all.cc"], "all", "cpp", options=["-std=c++20", "-O0", "-pthread"])
    assert built.status == "ok", built.message
    for number, program in enumerate(programs):
        inputs = draw_sizes(random.Random(number), len(program.sizes))
        plain, kernels = (
            execute(sandbox, place, "all", arguments=[str(2 * number + which), *inputs], limits=LIMITS)
            for which in (0, 1)
        )
        assert kernels.status == "ok", (program.kind, kernels.message)
        assert difference(plain.stdout, kernels.stdout) == "", in_cuda(
            program, draw_style(random.Random(number))
        )


def in_cuda(program: Program, style: Style) -> str:
    """A rendering with its launches as calls of a function."""
    text = renderer(program, style, "cuda", "cuda").text()
    return re.sub(r"(\w+)<<<(.*), (\w+)>>>\(", r"launch(\2, \3, \1, ", text)
