"""Signals while training: noted, not obeyed at once; and after it as before."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from nps_jax.runs import interruption


@pytest.fixture(autouse=True)
def handlers():
  before = {each: signal.getsignal(each) for each in interruption.SIGNALS}
  yield
  for each, handler in before.items():
    signal.signal(each, handler)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_the_first_signal_is_noted_and_the_watch_ends_with_its_block(name, caplog):
  number = signal.Signals[name]
  before = signal.getsignal(number)
  with caplog.at_level("WARNING", logger="absl"), interruption.Watch() as watch:
    assert not watch.asked
    os.kill(os.getpid(), number)
    assert watch.asked
  assert f"{name}: stopping after this step, with a checkpoint" in caplog.text
  assert signal.getsignal(number) is before


def test_schedulers_may_repeat_themselves_but_a_second_ctrl_c_stops_at_once():
  with interruption.Watch() as watch:
    for _ in range(3):
      os.kill(os.getpid(), signal.SIGTERM)
    assert watch.asked
    with pytest.raises(KeyboardInterrupt):
      os.kill(os.getpid(), signal.SIGINT)


def test_outside_of_training_sigterm_is_a_keyboard_interrupt():
  interruption.listen()
  with pytest.raises(KeyboardInterrupt):
    os.kill(os.getpid(), signal.SIGTERM)


def test_other_threads_train_without_a_watch():
  found = []

  def train():
    with interruption.Watch() as watch:
      found.append(watch.asked)

  before = signal.getsignal(signal.SIGTERM)
  thread = threading.Thread(target=train)
  thread.start()
  thread.join()
  assert found == [False] and signal.getsignal(signal.SIGTERM) is before


COMPILING = """
import os, signal, sys, threading
import jax, jax.numpy as jnp
from nps_jax.runs import interruption

def many(x):
  for axis in range(400):
    x = jnp.sort(x @ x.T, axis=axis % 2)
  return x

interruption.listen()
with interruption.leaving():
  print("begun")
  lowered = jax.jit(many).lower(jnp.ones((64, 64)))
  threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
  try:
    lowered.compile()
  except KeyboardInterrupt:
    raise SystemExit(interruption.EXIT) from None
"""


def test_what_stops_in_the_middle_of_compiling_ends_with_its_status():
  uncached = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
  done = subprocess.run(
    [sys.executable, "-c", COMPILING], env=uncached, capture_output=True, check=False
  )
  assert (done.returncode, done.stdout) == (interruption.EXIT, b"begun\n"), done.stderr


@pytest.mark.parametrize("code", [0, 1, "Error: no"])
def test_other_ends_stay(code):
  with pytest.raises(SystemExit) as caught, interruption.leaving():
    raise SystemExit(code)
  assert caught.value.code == code


def test_one_of_several_processes_ends_in_order(monkeypatch):
  monkeypatch.setattr(interruption.distributed, "is_joined", lambda: True)
  with pytest.raises(SystemExit) as caught, interruption.leaving():
    raise SystemExit(interruption.EXIT)
  assert caught.value.code == interruption.EXIT
