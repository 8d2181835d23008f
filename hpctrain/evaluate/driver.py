"""Write the C program that calls a unit, from a description of its arguments.

One generator serves C, CUDA and Fortran, since a Fortran unit with explicit shapes is called from C by
reference. The driver prints what the unit gave; it never sees what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hpctrain.errors import ConfigError

_ARGUMENT = re.compile(
    r"(?P<intent>in|out|inout|scratch|pass) (?P<type>[\w ()*]+?) (?P<name>\w+)"
    r"(?:\[(?P<length>[^\]]+)\])?(?: = (?P<value>.+))?"
)


@dataclass(frozen=True)
class Argument:
    """One argument, as `in double x[n] = draw(-1, 1)`; `i` counts the elements in the value.

    `pass` hands its value over as it is. `out` and `scratch` begin with values that no unit computes;
    `scratch` is not looked at.
    """

    intent: Literal["in", "out", "inout", "scratch", "pass"]
    type: str
    name: str
    length: str | None
    value: str

    @classmethod
    def parse(cls, text: str) -> Argument:
        """Raises ConfigError for what is no argument."""
        found = _ARGUMENT.fullmatch(text)
        if found is None or (found["value"] is None) is not (found["intent"] in ("out", "scratch")):
            raise ConfigError(
                f"{text!r} is no argument: write `in double x[n] = draw(-1, 1)`, `out double y[n]`"
            )
        intent = found["intent"]
        return cls(intent, found["type"], found["name"], found["length"], found["value"] or "POISON")  # type: ignore[arg-type]


@dataclass(frozen=True)
class Interface:
    """How a unit is called, and with what."""

    returns: str
    """`void`, or the C type of the result."""
    arguments: tuple[Argument, ...]
    cases: tuple[Mapping[str, int], ...]
    """Sizes to check with; all have the same names, which the values and lengths use."""
    timed: Mapping[str, int] | None = None
    """Sizes to time with, and to check as well."""
    by_reference: bool = False
    """Fortran."""
    helpers: str = ""
    """C code before the driver, such as functions that are passed."""


def c_driver(interface: Interface) -> str:
    """The driver. Macros choose the rest: ENTRY (the unit's symbol), WITH_MPI, ON_DEVICE.

    `driver SEED REPEATS` prints `name values` for each result of each case, and times the timed case; a
    negative REPEATS leaves that out. Lines that begin with `#` are measurements.
    """
    names = list(interface.cases[0])
    runs = [(case, "0", "") for case in interface.cases]
    if interface.timed:
        runs.append((interface.timed, "repeats", "if (repeats >= 0) "))
    calls = "\n".join(
        f"    {condition}run(seed + {number}u, {repeats}, {', '.join(str(case[name]) for name in names)});"
        for number, (case, repeats, condition) in enumerate(runs)
    )
    return "\n".join(
        [
            _HEAD,
            interface.helpers,
            f"EXTERN {interface.returns} ENTRY({', '.join(map(_declared(interface), interface.arguments))});",
            f"static void run(uint64_t seed, int repeats, {', '.join(f'long {name}' for name in names)})",
            "{",
            *(f"    (void){name};" for name in names),
            "    double best = 1e300, all = 0.0, others = 0.0;",
            "    for (int repeat = 0; repeat <= repeats; ++repeat) {",
            "        state = seed;",
            *_prepared(interface.arguments),
            *_called(interface),
            *_shown(interface),
            "    }",
            "    if (repeats && is_shown)",
            '        printf("#time %.9f\\n", best);',
            "    if (repeats && is_shown && all > 0.02) /* less is lost in the kernel's own counting */",
            '        printf("#shared %.4f\\n", others / all);',
            "}",
            _MAIN.replace("@CALLS@", calls),
        ]
    )


def _declared(interface: Interface) -> Callable[[Argument], str]:
    def declare(argument: Argument) -> str:
        if argument.intent == "pass":
            return argument.type
        constant = "const " if argument.intent == "in" and argument.length else ""
        pointer = " *" if argument.length or interface.by_reference or argument.intent != "in" else ""
        return f"{constant}{argument.type}{pointer}"

    return declare


def _prepared(arguments: Sequence[Argument]) -> list[str]:
    lines = []
    for argument in arguments:
        kind, name, value = argument.type, argument.name, argument.value
        if argument.intent == "pass":
            continue
        if argument.length is None:
            lines.append(f"        {kind} {name} = ({kind})({value});")
            continue
        lines += [
            f"        size_t size_{name} = (size_t)({argument.length});",
            f"        {kind} *{name} = ({kind} *)guarded(size_{name} * sizeof(*{name}));",
            f"        for (size_t i = 0; i < size_{name}; ++i)",
            f"            {name}[i] = ({kind})({value});",
        ]
    return lines


def _called(interface: Interface) -> list[str]:
    arrays = [argument for argument in interface.arguments if argument.length]
    on_device = [
        f"        {a.type} *device_{a.name} = ({a.type} *)to_device({a.name}, BYTES({a.name}));"
        for a in arrays
    ]
    back = [f"        from_device({a.name}, device_{a.name}, BYTES({a.name}));" for a in arrays]
    result = "" if interface.returns == "void" else f"{interface.returns} result = "
    handed = ", ".join(_handed(argument, interface) for argument in interface.arguments)
    return [
        *on_device,
        "        begin();",
        f"        {result}ENTRY({handed});",
        "        end(repeat, &best, &all, &others);",
        *back,
    ]


def _handed(argument: Argument, interface: Interface) -> str:
    if argument.intent == "pass":
        return argument.value
    if argument.length:
        return f"device_{argument.name}"
    return f"&{argument.name}" if interface.by_reference or argument.intent != "in" else argument.name


def _shown(interface: Interface) -> list[str]:
    lines = ["        if (is_shown && repeat == repeats) {"]
    if interface.returns != "void":
        lines.append('            printf("result %.17g\\n", (double)result);')
    for argument in interface.arguments:
        name = argument.name
        if argument.length:
            lines.append(
                f'            printf("{name} %s", guard_holds({name}, BYTES({name})) ? "within" : "overrun");'
            )
            if argument.intent in ("out", "inout"):
                lines.append(f"            for (size_t i = 0; i < size_{name}; i += stride(size_{name}))")
                lines.append(f'                printf(" %.17g", (double){name}[i]);')
            lines.append('            printf("\\n");')
        elif argument.intent in ("out", "inout"):
            lines.append(f'            printf("{name} %.17g\\n", (double){name});')
    lines.append("        }")
    return [*lines, *(f"        free({a.name});" for a in interface.arguments if a.length)]


_HEAD = r"""
#include <dirent.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef WITH_MPI
#include <mpi.h>
#endif
#ifdef __cplusplus
#define EXTERN extern
extern "C" unsigned long parallel_calls;
#else
#define EXTERN extern
extern unsigned long parallel_calls;
#endif
#define POISON (-9.87654e-7)
#define BYTES(array) (size_##array * sizeof(*array))
enum { GUARD = 128 };

static uint64_t state;
static int is_shown = 1;
static double wall, process, thread;

static uint64_t bits(void)
{
    uint64_t word = (state += UINT64_C(0x9e3779b97f4a7c15));
    word = (word ^ (word >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    word = (word ^ (word >> 27)) * UINT64_C(0x94d049bb133111eb);
    return word ^ (word >> 31);
}

static inline double draw(double low, double high)
{
    return low + (high - low) * (double)(bits() >> 11) * 0x1p-53;
}

/* A whole number from low to high, both included. */
static inline long pick(long low, long high)
{
    return low + (long)(bits() % (uint64_t)(high - low + 1));
}

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void *guarded(size_t bytes)
{
    char *memory = (char *)malloc(bytes + GUARD);
    if (memory == NULL)
        exit(3);
    memset(memory + bytes, 0xa5, GUARD);
    return memory;
}

static int guard_holds(const void *memory, size_t bytes)
{
    for (size_t i = 0; i < GUARD; ++i)
        if (((const unsigned char *)memory)[bytes + i] != 0xa5)
            return 0;
    return 1;
}

/* All of a short array, a sample of a long one. */
static size_t stride(size_t size) { return size <= 4096 ? 1 : size / 1999; }

#ifdef ON_DEVICE
static void check(cudaError_t status)
{
    if (status != cudaSuccess) {
        fprintf(stderr, "%s\n", cudaGetErrorString(status));
        exit(4);
    }
}
static void *to_device(const void *host, size_t bytes)
{
    void *device;
    check(cudaMalloc(&device, bytes + GUARD));
    check(cudaMemcpy(device, host, bytes + GUARD, cudaMemcpyHostToDevice));
    return device;
}
static void from_device(void *host, void *device, size_t bytes)
{
    check(cudaMemcpy(host, device, bytes + GUARD, cudaMemcpyDeviceToHost));
    check(cudaFree(device));
}
static void settle(void) { check(cudaDeviceSynchronize()); }
#else
#define to_device(host, bytes) (host)
#define from_device(host, device, bytes) ((void)0)
static void settle(void)
{
#ifdef WITH_MPI
    MPI_Barrier(MPI_COMM_WORLD);
#endif
}
#endif

static void begin(void)
{
    settle();
    process = seconds(CLOCK_PROCESS_CPUTIME_ID);
    thread = seconds(CLOCK_THREAD_CPUTIME_ID);
    wall = seconds(CLOCK_MONOTONIC);
}

/* The first call makes the threads and is not measured. `others`: processor time not the calling thread's. */
static void end(int repeat, double *best, double *all, double *others)
{
    settle();
    double took = seconds(CLOCK_MONOTONIC) - wall;
    double used = seconds(CLOCK_PROCESS_CPUTIME_ID) - process;
    double own = seconds(CLOCK_THREAD_CPUTIME_ID) - thread;
    if (repeat == 0)
        return;
    *best = took < *best ? took : *best;
    *all += used;
    *others += used - own;
}
"""

_MAIN = r"""
static int threads_alive(void)
{
    int threads = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *task; tasks != NULL && (task = readdir(tasks)) != NULL;)
        threads += task->d_name[0] != '.';
    return threads;
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    int repeats = argc > 2 ? atoi(argv[2]) : 0, ranks = 1;
#ifdef WITH_MPI
    int rank;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    is_shown = rank == ranks - 1; /* every rank must have the result: the last one shows it */
#endif
#ifdef ON_DEVICE
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        printf("#device 0\n");
        return 77;
    }
#endif
    (void)repeats;
@CALLS@
    unsigned long calls = parallel_calls;
#ifdef WITH_MPI
    MPI_Allreduce(MPI_IN_PLACE, &calls, 1, MPI_UNSIGNED_LONG, MPI_SUM, MPI_COMM_WORLD);
#endif
    if (is_shown)
        printf("#calls %lu\n#threads %d\n#ranks %d\n", calls, threads_alive(), ranks);
#ifdef WITH_MPI
    MPI_Finalize();
#endif
    return 0;
}
"""
