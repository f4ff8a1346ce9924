"""What every command has: its config's flag, and what it shows of log and warnings."""

from collections.abc import Callable, Sequence
import importlib.machinery
import importlib.util
import io
import logging as levels
import pathlib
import re
import sys
import traceback
import warnings

from absl import app
from absl import flags
from absl import logging
import ml_collections
from ml_collections import config_flags

from nps_jax import config as settings

flags.disclaim_key_flags()  # --config is shown as the command's own
FUNCTIONS = {"config": "get_config", "variants": "get_variants"}  # by flag: its file's
FIELDS = tuple(settings.leaves(settings.defaults()))  # of a config of the method


def define_config(
  values: flags.FlagValues = flags.FLAGS,
  argv: Sequence[str] | None = None,
  fields: Sequence[str] = FIELDS,
) -> flags.FlagHolder:
  """Defines --config, whose fields are changed by --config.NAME=VALUE.

  Args:
    argv: the command's words, from its own name on; None: those of this process.
    fields: that tell the command's configs from others, by their dotted names.
  """
  holder = config_flags.DEFINE_config_file(
    "config",
    None,
    "A file of configs/ or its name; change its fields with --config.NAME=VALUE.",
    flag_values=values,
    sys_argv=argv,
  )
  values["config"].parser = _ConfigParser(fields)  # takes names, tells faults in a line
  return holder


def packaged() -> pathlib.Path:
  """The folder of this package's configs: in an installed one within, else beside."""
  here = pathlib.Path(__file__).parent
  within = here / "configs"
  return within if within.is_dir() else here.parent / "configs"


def names(flag: str) -> list[str]:
  """Of this package's configs those that the flag may name."""
  head = f"def {FUNCTIONS[flag]}("
  paths = sorted(packaged().glob("*.py"))
  return [path.stem for path in paths if head in path.read_text(encoding="utf-8")]


def find(text: str, flag: str = "config") -> str:
  """The full path of the file that a flag names: one that is here, or the package's.

  A name is loco, loco.py or configs/loco.py. A colon and what follows stay: that goes
  to the file's get_config().

  Raises:
    ValueError: there is none; lists the package's.
  """
  place, *argument = _parts(text)
  path = pathlib.Path(place).expanduser()
  stem, places = path.name.removesuffix(".py"), [path]
  if path.parent in (pathlib.Path(), pathlib.Path("configs")):
    places.append(pathlib.Path("configs", f"{stem}.py"))
    places += [packaged() / f"{stem}.py"] if stem in names(flag) else []
  for path in places:
    if path.is_file():
      return ":".join([str(path.absolute()), *argument])
  raise ValueError(
    f"There is no file {place}; give --{flag}=FILE.py or a name: "
    f"{', '.join(names(flag))}."
  )


def _parts(text: str) -> list[str]:
  """The file and, after a colon, what goes to its get_config()."""
  return [text] if pathlib.Path(text).is_file() else text.split(":", 1)


class _ConfigParser(flags.ArgumentParser):
  """Reads the file that --config names."""

  def __init__(self, fields: Sequence[str]):
    self.fields = fields

  def parse(self, argument: str) -> ml_collections.ConfigDict:
    path, *options = _parts(find(argument))
    loader = importlib.machinery.SourceFileLoader("config_file", path)
    module = importlib.util.module_from_spec(
      importlib.util.spec_from_loader(loader.name, loader)
    )
    try:
      loader.exec_module(module)
      config = module.get_config(*options).lock()
      there = settings.leaves(config)
    except Exception as error:
      frames = traceback.extract_tb(error.__traceback__)
      lines = [f"line {frame.lineno}" for frame in frames if frame.filename == path]
      place = ", ".join([path, *lines[-1:]])
      kind = type(error).__name__
      raise ValueError(f"{place}: {kind}: {_words(error)}") from error
    for name in self.fields:
      if name not in there:
        raise ValueError(f"{path} is a config of something else: it has no {name}.")
    return config

  def flag_type(self) -> str:
    return "config's file"


def read(argv: Sequence[str], values: flags.FlagValues = flags.FLAGS) -> list[str]:
  """Reads a command's flags, --config among them; returns its words without them.

  Raises:
    ValueError: a flag is unknown or its value wrong, or there is no --config.
  """
  try:
    words = values(argv)
    absent = values["config"].value is None
  except (flags.Error, AttributeError, KeyError, TypeError) as error:
    field = getattr(error, "flagname", "").startswith("config.")
    absent = field and values["config"].value is None
    if not absent:
      raise ValueError(f"The flags cannot be read: {_words(error)}") from error
  if absent:
    raise ValueError(
      "--config is missing; give a file of configs/ or its name: "
      f"{', '.join(names('config'))}."
    )
  return words


def _words(error: BaseException) -> str:
  """The error's words in a line, and as they are meant where a KeyError quotes them."""
  while error.args and isinstance(error.args[0], Exception):
    error = error.args[0]
  quoted = isinstance(error, KeyError) and error.args
  return " ".join(str(error.args[0] if quoted else error).split())


def run(main: Callable[[Sequence[str]], None], default: str | None = None) -> None:
  """Runs a command that has --config; wrong flags end it with a line, and with 1.

  Args:
    default: the config where none is named; None: it must be.
  """

  def parse(argv: Sequence[str]) -> list[str]:
    if default and not any(re.match("--?config(=|$)", word) for word in argv):
      argv = [argv[0], f"--config={default}", *argv[1:]]
    try:
      return read(argv)
    except ValueError as error:
      raise SystemExit(f"Error: {error}") from error

  app.run(main, flags_parser=parse)


def chosen(
  flag: str, values: flags.FlagValues = flags.FLAGS
) -> ml_collections.ConfigDict:
  """The config under its flags, which go before the fields of its variant."""
  config = values[flag].value
  given = config_flags.get_override_values(values[flag])
  settings.apply_variant(config, given)
  return config


def listen() -> None:
  """Shows this package's log from INFO on, and of other packages only warnings.

  A letter that the console cannot show is told by its number. Of PIL's warnings none
  are shown on odd image files: what cannot be read is refused by name.
  """
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors="backslashreplace")  # no name may end a command
  logging.set_verbosity(logging.INFO)
  logging.get_absl_logger().addFilter(_is_ours)
  warnings.filterwarnings("ignore", module="PIL")


def _is_ours(record: levels.LogRecord) -> bool:
  here = pathlib.Path(__file__).parent
  return record.levelno > levels.INFO or here in pathlib.Path(record.pathname).parents
