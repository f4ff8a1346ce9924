"""What the commands show of the log and of warnings."""

import logging as levels
import pathlib
import warnings

from absl import logging


def listen() -> None:
  """Shows this package's log from INFO on, and of other packages only warnings.

  But for PIL's on odd image files: what cannot be read is refused by name.
  """
  logging.set_verbosity(logging.INFO)
  logging.get_absl_logger().addFilter(_is_ours)
  warnings.filterwarnings("ignore", module="PIL")


def _is_ours(record: levels.LogRecord) -> bool:
  here = pathlib.Path(__file__).parent
  return record.levelno > levels.INFO or here in pathlib.Path(record.pathname).parents
