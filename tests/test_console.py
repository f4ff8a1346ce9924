"""What the commands show of the log."""

import logging
import pathlib

from absl import logging as absl_logging

from nps_jax import console


def test_listening_shows_our_info_and_of_others_only_warnings(monkeypatch):
  logger = absl_logging.get_absl_logger()
  before = absl_logging.get_verbosity()
  monkeypatch.setattr(logger, "filters", [])
  ours = str(pathlib.Path(console.__file__).parent / "data" / "folder.py")

  def shown(level, path):
    record = logging.LogRecord("absl", level, path, 1, "words", None, None)
    return bool(logger.filter(record))

  assert shown(logging.INFO, "/lib/orbax/manager.py")
  try:
    console.listen()
    assert absl_logging.get_verbosity() == absl_logging.INFO
  finally:
    absl_logging.set_verbosity(before)
  assert shown(logging.INFO, ours)
  assert not shown(logging.INFO, "/lib/orbax/manager.py")
  assert shown(logging.WARNING, "/lib/orbax/manager.py")
