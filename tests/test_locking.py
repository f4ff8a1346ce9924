"""One training in a folder: a second one is told, whoever has died before."""

import subprocess
import sys

import pytest

from nps_jax.runs import locking

SCRIPT = """
import pathlib, sys
from nps_jax.runs import locking
with locking.alone(pathlib.Path(sys.argv[1])):
  print("in", flush=True)
  sys.stdin.read()
"""


def test_a_second_process_is_told_until_the_first_has_ended(tmp_path):
  words = [sys.executable, "-c", SCRIPT, str(tmp_path)]
  pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
  with subprocess.Popen(words, text=True, **pipes) as other:
    assert other.stdout.readline() == "in\n"
    told = pytest.raises(ValueError, match="is in use: another process trains there")
    with told, locking.alone(tmp_path):
      raise AssertionError
    other.kill()  # without a chance to clean up
    other.wait()
  with locking.alone(tmp_path):
    pass
