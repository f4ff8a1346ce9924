"""One process at a time in a run's folder."""

from collections.abc import Iterator
import contextlib
import pathlib

import filelock

from nps_jax import distributed

FILE = ".running"  # stays there; what counts is who has it locked


@contextlib.contextmanager
def alone(workdir: pathlib.Path) -> Iterator[None]:
  """Keeps other trainings out of the folder, until this one ends in whatever way.

  Of several hosts the lead keeps it for all.

  Raises:
    ValueError: another process is at work there.
  """
  if not distributed.is_lead():
    yield
    return
  workdir.mkdir(parents=True, exist_ok=True)
  lock = filelock.FileLock(workdir / FILE)
  try:
    lock.acquire(timeout=0)
  except filelock.Timeout as error:
    raise ValueError(
      f"{workdir} is in use: another process trains there. Wait until it has ended, or "
      "use another --workdir."
    ) from error
  try:
    yield
  finally:
    lock.release()
