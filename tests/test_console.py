"""What the commands show of the log."""

import logging
import pathlib
import warnings

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


def test_warnings_on_odd_image_files_are_not_shown(monkeypatch):
  monkeypatch.setattr(absl_logging.get_absl_logger(), "filters", [])
  before = absl_logging.get_verbosity()
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
      console.listen()
    finally:
      absl_logging.set_verbosity(before)
    warnings.warn_explicit("odd", UserWarning, "x.py", 1, "PIL.TiffImagePlugin")
    warnings.warn_explicit("ours", UserWarning, "y.py", 1, "nps_jax.trainer")
  assert [str(each.message) for each in caught] == ["ours"]
