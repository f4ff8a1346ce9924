"""Page faults: how often the system has to clear memory anew, as it counts itself."""

import platform
import subprocess
import sys

import pytest

from nps_jax import heap

ROUNDS, BLOCK, HUGE = 20, 64 * 2**20, 2 * 2**20  # bytes
PROGRAM = f"""
import resource, sys, threading
import numpy as np
from nps_jax import heap

def work():
  for _ in range({ROUNDS}):
    np.ones({BLOCK}, np.uint8)

def faults(run):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  run()
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def threaded():
  thread = threading.Thread(target=work)
  thread.start()
  thread.join()

if sys.argv[1] == "keep":
  assert heap.keep_freed()
work()
print(faults(work), faults(threaded))
"""


@pytest.fixture(scope="module")
def faults():
  """Faults in all rounds: those of the main thread and of another, by setting."""
  found = {}
  for setting in ("keep", "leave"):
    words = [sys.executable, "-c", PROGRAM, setting]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found[setting] = [int(each) for each in done.stdout.split()]
  return found


def test_a_block_is_cleared_once_and_not_each_time(faults):
  for kept, left in zip(faults["keep"], faults["leave"], strict=True):
    assert left >= ROUNDS * BLOCK / HUGE  # one of them clears one page, or a huge one
    assert kept < ROUNDS


def test_other_c_libraries_are_left_alone(monkeypatch):
  monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
  assert not heap.keep_freed()
