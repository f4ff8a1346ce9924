"""Signals while training: noted, not obeyed at once; and after it as before."""

import os
import signal
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
