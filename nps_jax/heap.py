"""Freed memory stays with the process, for the next step to use again.

Each step on the CPU asks for the same hundred megabytes. By default glibc gives large
blocks back to the system as they are freed, and the system clears their pages anew.
"""

import ctypes
import platform

ARENA_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD = -8, -3, -1  # of glibc's malloc.h
LARGEST = 2**31 - 1  # bytes; mallopt takes an int


def keep_freed() -> bool:
  """Has glibc keep up to 2 GiB that are free; whether there is a glibc that does.

  Call it before JAX begins its threads. A setting of the environment's (MALLOC_...)
  counts no longer. Ours.
  """
  if platform.libc_ver()[0] != "glibc":
    return False
  mallopt = ctypes.CDLL(None).mallopt
  # One arena: those of threads hold no block of more than 64 MiB, and map it instead.
  wanted = {ARENA_MAX: 1, MMAP_THRESHOLD: LARGEST, TRIM_THRESHOLD: LARGEST}
  return all([mallopt(name, value) == 1 for name, value in wanted.items()])
