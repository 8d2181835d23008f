"""The filter of system calls, compiled by libseccomp."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os

_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_GREATER, _EQUAL, _MASKED_EQUAL = 6, 4, 7
_NEW_USER_NAMESPACE = 0x10000000
_FAMILIES = (1, 2, 10, 16)  # unix, inet, inet6, netlink: the sandbox has a loopback of its own

# What no numerical program needs and where holes in the kernel were found; namespaces fence the rest.
_REFUSED = (
    "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "mount", "umount2",
    "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsmount", "fsconfig", "fspick",
    "mount_setattr", "unshare", "setns", "bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key",
    "request_key", "init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load",
    "reboot", "swapon", "swapoff", "acct", "quotactl", "syslog", "open_by_handle_at", "name_to_handle_at",
    "io_uring_setup", "io_uring_enter", "io_uring_register", "iopl", "ioperm", "settimeofday",
    "clock_settime", "clock_adjtime", "adjtimex", "vhangup", "modify_ldt",
)  # fmt: skip


class _Comparison(ctypes.Structure):
    _fields_ = [
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    ]


def filter_program() -> int:
    """A file descriptor that holds the filter for `bwrap --seccomp`; the caller closes it.

    Raises OSError where libseccomp is missing or refuses.
    """
    library = _library()
    context = library.seccomp_init(_ALLOW)
    if not context:
        raise OSError("libseccomp cannot make a filter")
    try:
        for name in _REFUSED:
            _refuse(library, context, name, errno.EPERM)
        # clone3 hides its flags from a filter; told that it does not exist, libc falls back on clone.
        _refuse(library, context, "clone3", errno.ENOSYS)
        new_user = _Comparison(0, _MASKED_EQUAL, _NEW_USER_NAMESPACE, _NEW_USER_NAMESPACE)
        _refuse(library, context, "clone", errno.EPERM, new_user)
        for family in range(max(_FAMILIES)):
            if family not in _FAMILIES:
                _refuse(library, context, "socket", errno.EAFNOSUPPORT, _Comparison(0, _EQUAL, family, 0))
        _refuse(library, context, "socket", errno.EAFNOSUPPORT, _Comparison(0, _GREATER, max(_FAMILIES), 0))
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    ]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


def _refuse(library: ctypes.CDLL, context: int, name: str, code: int, *when: _Comparison) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number == -1:  # this libseccomp is older than the call
        return
    conditions = (_Comparison * len(when))(*when)
    result = library.seccomp_rule_add_array(context, _ERRNO | code, number, len(when), conditions)
    if result < 0:
        raise OSError(-result, f"libseccomp refuses the rule for {name}: {os.strerror(-result)}")


def _export(library: ctypes.CDLL, context: int) -> int:
    program = os.memfd_create("seccomp", 0)
    result = library.seccomp_export_bpf(context, program)
    if result < 0:
        os.close(program)
        raise OSError(-result, f"libseccomp cannot write the filter: {os.strerror(-result)}")
    os.lseek(program, 0, os.SEEK_SET)
    return program
