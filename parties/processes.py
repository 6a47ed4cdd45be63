"""What the processes of a party share: their environment, what is done about memory, an end with their parent."""

import contextlib
import ctypes
import gc
import os
import resource
import select
import threading
from collections.abc import Callable, Iterator
from typing import Final

NUMERIC_VARIABLES: Final = (
    # For which processor OpenBLAS, BLIS and MKL compute, and in which blocks: it decides the order of sums, so the
    # last bits of a result. Who sets one may have to: on some processors a library's own choice computes wrongly.
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "OPENBLAS_BLOCK_FACTOR",
    "GOTO_BLOCK_FACTOR",
    "BLIS_ARCH_TYPE",
    "BLIS_MODEL_TYPE",
    "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS",
    # The same for numpy's and torch's own loops, and for the oneDNN inside torch, under both of its names.
    "NPY_DISABLE_CPU_FEATURES",
    "NPY_ENABLE_CPU_FEATURES",
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_CPU_ISA_HINTS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_CPU_ISA_HINTS",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    # The same for the C library's exp and log.
    "GLIBC_TUNABLES",
    # The order of sums over threads; whether a second copy of Intel's OpenMP in one process ends that process.
    "KMP_DETERMINISTIC_REDUCTION",
    "KMP_DUPLICATE_LIB_OK",
)
"""The only variables of its own environment that a process passes on to one that computes for it."""

_ONE_THREAD: Final = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "BLIS_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
    ),
    "1",
)
"""Processes share the cores, and on more threads the order of sums would change with the machine's load."""

PARENT_ENDED: Final = 3
"""Exit code of a process whose pipe has closed."""
_PR_SET_DUMPABLE: Final = 4
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
LARGE_BYTES: Final = 128 << 10
"""Of a buffer whose memory is given back as soon as it is freed. Each TLS connection has one of 256 KB."""


def computing_environment() -> dict[str, str]:
    """For a process that computes; nothing else of ours: it may hold tokens, proxies, or other jobs' settings."""
    numeric = {name: os.environ[name] for name in NUMERIC_VARIABLES if name in os.environ}
    return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"} | numeric | _ONE_THREAD


def close_memory() -> None:
    """From here on no other process of the same user reads this one's memory or opens its files, and it leaves no core.

    Linux only; elsewhere it is left to the system. Raises OSError where a sandbox forbids it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)
    if prctl is not None and prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"this process's memory cannot be closed to others: {os.strerror(number)}")


def give_memory_back() -> None:
    """From here on each large buffer has pages of its own, which go back to the system when it is freed.

    glibc raises the size that counts as large with each such buffer that is freed, up to 32 MiB, and keeps the pages of
    smaller ones: a server would stay as large as the messages of its largest job. It also gives
    each thread pages of its own, of which a server with many threads would keep many half empty. Elsewhere it is left
    to the system.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(_M_ARENA_MAX, 2)


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """While a program's modules are loaded; where their garbage is searched for, that takes a fifth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def at_hang_up(descriptor: int, then: Callable[[], object]) -> None:
    """Do something once the other end of this pipe is gone, however its process ended, and whatever this one does.

    A hang-up needs no reading: it is seen even while what the pipe holds is not read.
    """

    def watch() -> None:
        hang_up = select.poll()
        hang_up.register(descriptor, 0)
        hang_up.poll()
        then()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def exit_at_hang_up(descriptor: int) -> None:
    """End this process at once when the one that started it has ended."""
    at_hang_up(descriptor, lambda: os._exit(PARENT_ENDED))
