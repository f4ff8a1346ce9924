"""Seconds of calls, measured in turns; the device, and peak memory."""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import os
import pathlib
import resource
import statistics
import subprocess
import tempfile
import time
from typing import Any, NamedTuple

import jax

LEAST, MOST = 5, 50  # repeats of each call
PATIENCE = 4.0  # seconds after which there are no more than LEAST repeats

Call = Callable[[], Any]


def interleaved(calls: Mapping[str, Call]) -> dict[str, float]:
  """The median seconds of each call, by name; all are called in turns.

  So that what else the machine does slows them alike, and their ratios are fair. Before
  that each is called twice, which compiles it and is not counted. What a call returns
  is waited for.
  """
  for _ in range(2):
    for call in calls.values():
      jax.block_until_ready(call())
  seconds = {name: [] for name in calls}
  begin = time.perf_counter()
  for repeat in range(MOST):
    if repeat >= LEAST and time.perf_counter() - begin > PATIENCE:
      break
    for name, call in calls.items():
      start = time.perf_counter()
      jax.block_until_ready(call())
      seconds[name].append(time.perf_counter() - start)
  return {name: statistics.median(values) for name, values in seconds.items()}


def device() -> str:
  """The kind of the devices that JAX computes on, and how many there are."""
  first = jax.devices()[0]
  return f"{first.platform}: {first.device_kind} x {jax.device_count()}"


def forget_peak() -> None:
  """Lets `peak` of the host begin anew, where the system can (Linux)."""
  with contextlib.suppress(OSError):
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def peak() -> dict[str, float | None]:
  """The most memory in MiB that this process had at once: of the host and a device.

  None of the device where it has no memory of its own.
  """
  try:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    host = int(line.split()[1]) / 1024
  except (OSError, ValueError):
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
  used = jax.devices()[0].memory_stats()
  on_device = round(used["peak_bytes_in_use"] / 2**20, 1) if used else None
  return {"host": round(host, 1), "device": on_device}


class Spent(NamedTuple):
  """What a command took."""

  seconds: float
  cpu_seconds: float  # of all its threads
  peak_mib: float


def command(
  words: Sequence[str], environment: Mapping[str, str] | None = None
) -> Spent:
  """Runs a command and tells what it took; its output goes nowhere.

  Args:
    environment: variables besides those of this process.

  Raises:
    ValueError: it failed; shows the end of what it said.
  """
  variables = {**os.environ, **(environment or {})}
  start = time.perf_counter()
  with tempfile.TemporaryFile() as said:
    process = subprocess.Popen(
      words, stdout=subprocess.DEVNULL, stderr=said, env=variables
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
      said.seek(0)
      end = said.read().decode(errors="replace").strip()[-1000:]
      raise ValueError(f"`{' '.join(words)}` failed: {end}")
  return Spent(
    seconds=time.perf_counter() - start,
    cpu_seconds=usage.ru_utime + usage.ru_stime,
    peak_mib=usage.ru_maxrss / 1024,  # KiB on Linux
  )
