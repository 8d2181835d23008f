"""Which parallel programming models a file really uses: what it calls, declares or directs.

Comments, strings, includes and the conditions of the preprocessor are no use: a file that mentions MPI, or
includes `mpi.h` and calls nothing of it, does not count. The body of a macro does.
"""

from __future__ import annotations

import re

from hpctrain.corpus.lexer import Kind, regions

MODELS = (
    "coarrays", "cuda", "hip", "kokkos", "mpi", "openacc", "opencl", "openmp", "pthreads", "raja", "sycl",
)  # fmt: skip
"""Every programming model that is looked for. OpenMP, OpenACC and MPI in all languages."""

# By its sentinel, or by how the string of a _Pragma begins.
_DIRECTIVES = {
    "openmp": rb"\#\s*pragma\s+ompx?\b | \A\"\s*omp\b | \A[!c*]\$(?:ompx?|omx)",
    "openacc": rb"\#\s*pragma\s+acc\b | \A\"\s*acc\b | \A[!c*][$@]acc",
    "cuda": rb"\A[!c*][$@]cuf",
}
_C_CODE = {
    "openmp": rb"""\bomp_(?:get|set|init|destroy|unset|test|in|is|target|fulfill|display|capture)_\w+\s*\(
        | \b__pragma\s*\(\s*omp\b""",
    "openacc": rb"""\bacc_(?:get|set|init|shutdown|async|wait|on|malloc|free|copyin|copyout|create|delete
        |update|map|unmap|deviceptr|hostptr|is|memcpy|attach|detach)\w*\s*\(""",
    "mpi": rb"\bP?MPI_[A-Z][a-z]\w* | \bMPI_COMM_(?:WORLD|SELF|NULL)\b | \bMPI::[A-Z]\w+",
    "cuda": rb"""\bcuda[A-Z]\w+\s*\( | \bcuda(?:Stream|Event|Error|DeviceProp|Graph|Array|TextureObject)_?t?\b
        | \bcu(?:Init|Ctx|Module|Launch|Mem|Device|Stream|Event|Func|Link)[A-Z]?\w*\s*\(
        | \b(?:cublas|cufft|cusparse|cusolver|curand|cudnn|nccl|nvshmem)\w*[A-Z]\w+\s*\(
        | \bcooperative_groups\b""",
    "hip": rb"""\bhip[A-Z]\w+\s*\( | \bhip(?:Stream|Event|Error|DeviceProp|Graph|Array|TextureObject)_?t\b
        | \b(?:hipblas|hipfft|hipsparse|hipsolver|hiprand|rocblas|rocfft|rocsparse|rocsolver)\w*\s*\(""",
    "sycl": rb"\bsycl\s*::\s*\w | \busing\s+namespace\s+(?:cl::)?sycl\b",
    "opencl": rb"""
        \bcl(?:Create|Enqueue|Get|Set|Build|Compile|Link|Release|Retain|Finish|Flush|Wait|SVM)[A-Z]?\w*\s*\(
        | \bcl_(?:context|command_queue|kernel|program|mem|device_id|platform_id|event)\b
        | \bcl::(?:Context|CommandQueue|Kernel|Program|Buffer|Device|Platform|NDRange)\b
        | \b__kernel\b | \bget_global_id\s*\(""",
    "kokkos": rb"\bKokkos\s*::\s*\w | \bKOKKOS_(?:\w*LAMBDA|\w*FUNCTION)\b | \busing\s+namespace\s+Kokkos\b",
    "raja": rb"\bRAJA\s*::\s*\w | \bRAJA_(?:HOST_)?(?:DEVICE|LAMBDA)\b",
    "pthreads": rb"\bpthread_(?:\w+\s*\( | (?:t|attr_t|mutex_t|cond_t|key_t|once_t|rwlock_t|barrier_t)\b)",
}
_GPU_CODE = rb"\b__(?:global|device|shared|constant|launch_bounds)__\b | <<<[^;]{1,300}?>>>\s*\("

_MPI_ROUTINES = rb"""(?:init|init_thread|finalize|finalized|initialized|abort|wtime|wtick|barrier|query_thread
    |i?[bsr]?send(?:_init)?|i?m?recv(?:_init)?|sendrecv(?:_replace)?|i?m?probe|start(?:all)?|pack|unpack|pack_size
    |wait(?:all|any|some)?|test(?:all|any|some)?|cancel|i?bcast|i?gatherv?|i?scatterv?|i?allgatherv?|i?alltoall[vw]?
    |i?allreduce|i?reduce|i?reduce_scatter(?:_block)?|i?scan|i?exscan|op_create|op_free|put|r?get|accumulate
    |get_(?:count|processor_name|address|version|library_version|elements|accumulate)|address|fetch_and_op
    |(?:comm|group|type|win|file|cart|graph|dist_graph|info|request|errhandler|attr|dims|error|buffer|intercomm
      |neighbor|ineighbor|alloc|free|status|session|topo|keyval|op|mprobe|publish|lookup|unpublish|add)_\w+)"""
_FORTRAN_CODE = {
    "openmp": rb"\bcall\s+omp_\w+ | \bomp_(?:get|set|init|in|is|test)_\w+\s*\( | \buse\s+omp_lib\b",
    "openacc": rb"\bcall\s+acc_\w+ | \bacc_(?:get|set|init|is|async|wait|on)_\w+\s*\( | \buse\s+openacc\b",
    "mpi": rb"\bp?mpi_" + _MPI_ROUTINES + rb"\s*(?:\(|\b(?=[ \t]*$))"
    rb"""| \bmpi_(?:comm_(?:world|self|null)|status_size|statuses?_ignore|success|any_source|any_tag|proc_null
        |double_precision|double_complex|in_place|integer8?|real8?|byte|max_processor_name|address_kind
        |request_null|undefined|sum|lor|land|maxloc|minloc)\b
    | \btype\s*\(\s*mpi_(?:comm|status|request|datatype|op|win|group|info|file)\s*\)""",
    "cuda": rb"""\battributes\s*\(\s*(?:global|device|host\s*,\s*device)\s*\) | <<<[^;\n]{1,200}?>>>
        | \buse\s+(?:cudafor|cudadevice|cublas\w*|cufft\w*|cusolver\w*|cusparse|curand\w*|nvtx|nccl)\b
        | ,\s*(?:device|managed|pinned)\s*(?:,[^\n]*)?:: | \bcuda[a-z]{3,}\s*\(""",
    "hip": rb"\bhip[a-z]{3,}\s*\( | \buse\s+hipfort\w*",
    "coarrays": rb"""[\w)]\s*\[\s*(?:[\d:,\s]*\*)\s*\] | \bthis_image\s*\( | \bnum_images\s*\(
        | ^[ \t\d]*sync[ \t]+(?:all|images|memory|team)\b | \bcall\s+co_(?:sum|min|max|broadcast|reduce)\b
        | \bcodimension\s*\[""",
}


def _compiled(patterns: dict[str, bytes], flags: int = 0) -> dict[str, re.Pattern[bytes]]:
    return {
        model: re.compile(pattern, re.VERBOSE | re.MULTILINE | flags) for model, pattern in patterns.items()
    }


_DIRECTIVE_PATTERNS = _compiled(_DIRECTIVES, re.IGNORECASE)
_C_PATTERNS = _compiled(_C_CODE)
_GPU_PATTERN = re.compile(_GPU_CODE, re.VERBOSE)
_FORTRAN_PATTERNS = _compiled(_FORTRAN_CODE, re.IGNORECASE)
_BLANK_LINES = re.compile(rb"\n\s*\n")
_CONDITIONAL = re.compile(rb"[!cC*]\$\Z")
# The name and parameters of a macro are no use of what they spell; its body is.
_MACRO_HEAD = re.compile(rb"#[ \t]*define[ \t]+\w+(?:\([^()\n]*\))?")


def programming_models(content: bytes, language: str) -> frozenset[str]:
    """Which of MODELS a file uses in code, macro bodies or directives; `language` is a label of the corpus.

    What CUDA and HIP spell alike is CUDA's, unless the file is HIP by its language or calls only HIP.
    """
    is_fortran = language.startswith("fortran")
    found: set[str] = {"opencl"} if language == "opencl" else set()
    parts = []
    in_macro = False  # a comment or string may divide its body
    for kind, start, stop in regions(content, language):
        if kind is Kind.CODE:
            in_macro = False
            parts.append(content[start:stop])
        elif kind is Kind.DIRECTIVE:
            found |= _directive_models(content[start:stop])
        elif kind is Kind.PREPROCESSOR:
            head = _MACRO_HEAD.match(content, start, stop)
            if in_macro or head:
                parts.append(content[head.end() if head else start : stop])
            in_macro = in_macro or head is not None
    code = _BLANK_LINES.sub(b"\n", b" ".join(parts))
    patterns = _FORTRAN_PATTERNS if is_fortran else _C_PATTERNS
    found |= {model for model, pattern in patterns.items() if model not in found and pattern.search(code)}
    if not is_fortran and _GPU_PATTERN.search(code):
        found.add("hip" if language == "hip" or ("hip" in found and "cuda" not in found) else "cuda")
    return frozenset(found)


def _directive_models(text: bytes) -> set[str]:
    if _CONDITIONAL.match(text):
        return {"openmp"}  # compiled only under OpenMP
    return {model for model, pattern in _DIRECTIVE_PATTERNS.items() if pattern.search(text)}
