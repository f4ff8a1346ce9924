"""SIGTERM and SIGINT: stop after the step at hand, with the work saved."""

from collections.abc import Iterator
import contextlib
import os
import signal
import sys
import threading
from types import FrameType

from absl import logging

from nps_jax import distributed

EXIT = 75  # the exit code of a stopped command: start it again, it goes on
SIGNALS = (signal.SIGTERM, signal.SIGINT)


def listen() -> None:
  """Makes SIGTERM what SIGINT is: a KeyboardInterrupt where the program stands."""
  signal.signal(signal.SIGTERM, signal.default_int_handler)


@contextlib.contextmanager
def leaving() -> Iterator[None]:
  """Within it, SystemExit(EXIT) ends the process at once, and with that status.

  JAX compiles on threads that a signal does not stop: an orderly end would wait for
  none of them, and crash. Of several processes each ends in order, as the others wait.
  """
  try:
    yield
  except SystemExit as end:
    if end.code != EXIT or distributed.is_joined():
      raise
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT)


class Watch:
  """Within it, a signal only sets `asked`; a second SIGINT interrupts at once.

  Not a second SIGTERM: schedulers send several. Outside of the main thread, which
  alone gets signals, it does nothing.
  """

  def __init__(self, what: str = "stopping after this step, with a checkpoint"):
    """Tells `what` follows when it is asked."""
    self.asked, self._what = False, what

  def __enter__(self) -> "Watch":
    heard = SIGNALS if threading.current_thread() is threading.main_thread() else ()
    self._before = {number: signal.signal(number, self._note) for number in heard}
    return self

  def __exit__(self, *_: object) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _note(self, number: int, frame: FrameType | None) -> None:
    if self.asked and number == signal.SIGINT:
      raise KeyboardInterrupt
    if not self.asked:
      logging.warning(
        "%s: %s. Ctrl-C then stops at once.", signal.Signals(number).name, self._what
      )
    self.asked = True
