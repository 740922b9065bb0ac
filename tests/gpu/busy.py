# SPDX-License-Identifier: Apache-2.0
"""Keeps a GPU busy with nothing but its driver: a kernel in PTX that multiplies and adds."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

PTX = b"""
.version 7.0
.target sm_70
.address_size 64
.visible .entry spin(.param .u32 rounds)
{
    .reg .u32 %n;
    .reg .f32 %x;
    .reg .pred %more;
    ld.param.u32 %n, [rounds];
    mov.f32 %x, 0f3F800001;
again:
    fma.rn.f32 %x, %x, %x, %x;
    fma.rn.f32 %x, %x, %x, %x;
    fma.rn.f32 %x, %x, %x, %x;
    fma.rn.f32 %x, %x, %x, %x;
    sub.u32 %n, %n, 1;
    setp.ne.u32 %more, %n, 0;
    @%more bra again;
    ret;
}
"""
BLOCKS, THREADS, ROUNDS = 2048, 1024, 200_000  # some tens of milliseconds


def _check(status: int) -> None:
    assert status == 0, f"CUDA driver error {status}"


def _spin(stop: threading.Event, started: threading.Event) -> None:
    cuda = ctypes.CDLL("libcuda.so.1")
    context, module, kernel = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    _check(cuda.cuInit(0))
    _check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
    _check(cuda.cuCtxSetCurrent(context))
    _check(cuda.cuModuleLoadData(ctypes.byref(module), PTX))
    _check(cuda.cuModuleGetFunction(ctypes.byref(kernel), module, b"spin"))
    rounds = ctypes.c_uint32(ROUNDS)
    arguments = (ctypes.c_void_p * 1)(ctypes.addressof(rounds))
    shape = (BLOCKS, 1, 1, THREADS, 1, 1)
    while not stop.is_set():
        _check(cuda.cuLaunchKernel(kernel, *shape, 0, None, arguments, None))
        _check(cuda.cuCtxSynchronize())
        started.set()
    _check(cuda.cuDevicePrimaryCtxRelease_v2(0))


@contextmanager
def busy() -> Iterator[None]:
    """GPU 0 is busy within."""
    stop, started = threading.Event(), threading.Event()
    thread = threading.Thread(target=_spin, args=(stop, started), daemon=True)
    thread.start()
    assert started.wait(60), "no kernel ran"
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
