"""What every command has: its config's flag, and what it shows of log and warnings."""

import logging as levels
import pathlib
import warnings

from absl import flags
from absl import logging
import ml_collections
from ml_collections import config_flags

from nps_jax import config as settings


def define_config() -> flags.FlagHolder:
  """Defines --config, whose fields are changed by --config.NAME=VALUE."""
  return config_flags.DEFINE_config_file(
    "config", None, "A file of configs/; change its fields with --config.NAME=VALUE."
  )


def chosen(flag: str) -> ml_collections.ConfigDict:
  """The config under its flags, which go before the fields of its variant."""
  config = flags.FLAGS[flag].value
  given = config_flags.get_override_values(flags.FLAGS[flag])
  settings.apply_variant(config, given)
  return config


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
