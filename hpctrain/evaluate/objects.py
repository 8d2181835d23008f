"""What a compiled unit calls and defines, and how its parallel calls are counted while it runs."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

from hpctrain.errors import LaunchError
from hpctrain.sandbox.run import Sandbox
from hpctrain.sandbox.toolchain import readable

# Calls that share work out, or move data between ranks. To ask for one's rank, or to wait, is neither.
_PARALLEL = {
    "openmp": r"GOMP_(?:parallel|task|teams|target)\w*",
    "openacc": r"GOACC_(?:parallel|kernels)\w*",
    "mpi": r"mpi_(?:i?(?:[bsr]?send|m?recv|sendrecv(?:_replace)?|bcast|gatherv?|scatterv?|allgatherv?"
    r"|alltoall[vw]?|allreduce|reduce|reduce_scatter(?:_block)?|scan|exscan|neighbor_\w+)"
    r"|[bsr]?send_init|recv_init|start(?:all)?"
    r"|r?put|r?get|r?accumulate|(?:fetch_and_op|compare_and_swap)|file_(?:read|write)\w*)(?:_init)?(?:_f08(?:ts)?)?_?",
    "cuda": r"(?:__)?cudaLaunch\w*|__cudaPushCallConfiguration",
}
# A unit computes. What prints, ends the program, or reaches for the system could speak in the driver's place.
_FORBIDDEN = re.compile(
    r"(?:_?_?IO_)?(?:v?d?printf|puts|putchar|fputs|fputc|putc|fwrite|vfprintf|fprintf|write|writev|pwrite|send|sendto"
    r"|sendmsg|system|popen|exec[lv]p?e?|fexecve|posix_spawnp?|v?fork|clone|syscall|ptrace|dlopen|dlmopen|dlsym|dlvsym"
    r"|_exit|_Exit|quick_exit|on_exit|raise|kill|tgkill|sigaction|signal|setitimer|timer_create"
    r"|mprotect|mmap(?:64)?|mremap|memfd_create|shm_open|pthread_create|setenv|putenv|unsetenv|freopen|f?open(?:64)?|openat|creat|dup[23]?|remove|unlink"
    r"|clock_gettime|clock_settime|_exit_i[48])(?:@.*)?"
    r"|__(?:v?f?printf|v?dprintf)_chk|_gfortran_(?:st_write|st_open|st_read|system\w*|exit\w*)"
    r"|(?:P?MPI_Init(?:_thread)?|P?MPI_Finalize|p?mpi_init(?:_thread)?(?:_f08(?:ts)?)?_|p?mpi_finalize(?:_f08(?:ts)?)?_)|_ZSt4c(?:out|err)|_ZSo\w+"
    r"|_ZNSt\w*basic_[io]?fstream\w*"
)


@dataclass(frozen=True)
class Symbols:
    """Of one object file."""

    undefined: frozenset[str]
    defined: frozenset[str]

    def parallel(self, model: str) -> frozenset[str]:
        """The calls that make it a program of this programming model."""
        patterns = [_PARALLEL[part] for part in model.split("+") if part in _PARALLEL]
        return frozenset(
            name
            for name in self.undefined
            if any(re.fullmatch(pattern, name.removeprefix("P"), re.IGNORECASE) for pattern in patterns)
        )

    def uses_each(self, model: str) -> bool:
        """Whether every part of the model, such as both of `mpi+openmp`, is called."""
        return all(self.parallel(part) for part in model.split("+") if part in _PARALLEL)

    def forbidden(self) -> list[str]:
        """What a unit has no reason to call."""
        return sorted(name for name in self.undefined if _FORBIDDEN.fullmatch(name))


def is_checkable(model: str) -> bool:
    """Whether it is known what the calls of a programming model look like."""
    return all(part in _PARALLEL for part in model.split("+"))


def read_symbols(sandbox: Sandbox, directory: Path, file: str) -> Symbols:
    """The global symbols of an object file. Raises LaunchError if `nm` is missing or refuses it."""
    done = sandbox.run(["nm", "--format=posix", "--extern-only", file], directory, readable=readable())
    if done.status != "ok":
        raise LaunchError(f"nm cannot read an object file: {done.message}")
    undefined: set[str] = set()
    defined: set[str] = set()
    for line in done.stdout.splitlines():
        name, kind, *_ = line.split()
        (undefined if kind in ("U", "w", "v") else defined).add(name)
    return Symbols(frozenset(undefined), frozenset(defined))


def close_off(sandbox: Sandbox, directory: Path, file: str, entry: str, counted: frozenset[str]) -> None:
    """Leave only `entry` visible to the linker, so that a unit cannot stand in for a library's function.

    The `counted` calls are led through counters. Raises LaunchError if `objcopy` fails.
    """
    options = ["--wildcard", f"--keep-global-symbol={entry}", "--keep-global-symbol=DW.ref.*"]
    if counters_known():
        options += [f"--redefine-sym={name}=counted_{name}" for name in sorted(counted)]
    done = sandbox.run(["objcopy", *options, file], directory, readable=readable())
    if done.status != "ok":
        raise LaunchError(f"objcopy cannot rewrite an object file: {done.message}")


def counters_known() -> bool:
    """Whether calls can be counted on this kind of processor."""
    return platform.machine() in ("x86_64", "aarch64")


def counters(counted: frozenset[str]) -> str:
    """Assembly that defines `parallel_calls` and, for each call, `counted_NAME`, which counts and goes on.

    A jump, not a call: so it needs no knowledge of arguments and serves C and Fortran.
    """
    lines = [".section .note.GNU-stack,\"\",%progbits", ".bss", ".globl parallel_calls", ".balign 8",
             "parallel_calls: .skip 8", ".text"]  # fmt: skip
    for name in sorted(counted) if counters_known() else ():
        lines += [f".globl counted_{name}", f".type counted_{name}, %function", f"counted_{name}:"]
        if platform.machine() == "x86_64":
            lines += ["lock incq parallel_calls(%rip)", f"jmp {name}@PLT"]
        else:  # x16 and x17 are free between a call and its target
            lines += ["adrp x16, parallel_calls", "add x16, x16, :lo12:parallel_calls", "ldr x17, [x16]",
                      "add x17, x17, #1", "str x17, [x16]", f"b {name}"]  # fmt: skip
    return "\n".join([*lines, ""])
