"""Named changes to a config, from a file with get_variants(), checked before any use.

A variant is a dict of dotted fields and their values, such as {"codebook.size": 64}.
"""

from collections.abc import Mapping, Sequence
import importlib.util
import pathlib
import re
import types
from typing import Any

import ml_collections

from nps_jax import config as settings
from nps_jax.data import listing

Fields = Mapping[str, Any]
DEFAULT = {"default": {}}  # where no file is given
RIVALS = ("patch-memory", "pooled-gaussian")  # detectors of nps_jax.study.rivals
NAME = re.compile(r"[A-Za-z0-9+_][A-Za-z0-9+_.-]*")  # it is a folder's name, too
DATA = "data"  # folder of a sweep that is no variant's: what is drawn for all of them
FIXED = ("seed", "data.category", "data.root", "data.synthetic")  # one for all variants


def read_module(path: pathlib.Path) -> types.ModuleType:
  """The Python file as a module.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: its name does not end in .py.
  """
  if not path.is_file():
    raise FileNotFoundError(f"There is no file {path}; give --variants=FILE.py.")
  spec = importlib.util.spec_from_file_location("variants_file", path)
  if spec is None or spec.loader is None:
    raise ValueError(f"{path} is no Python file; its name must end in .py.")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def read(path: pathlib.Path) -> dict[str, Fields]:
  """The variants that the file's get_variants() returns, in its order.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it has no get_variants(), or that returns something else, nothing, or a
      name that no folder can have.
  """
  module = read_module(path)
  if not hasattr(module, "get_variants"):
    raise ValueError(f"{path} has no get_variants(); see configs/ablation.py.")
  found = module.get_variants()
  if not isinstance(found, dict) or not all(
    isinstance(fields, dict) for fields in found.values()
  ):
    raise ValueError(
      f"get_variants() of {path} must return a dict of names, each with a dict of "
      'fields, such as {"small": {"codebook.size": 64}}.'
    )
  if not found:
    raise ValueError(f"get_variants() of {path} returns no variant.")
  for name in found:
    usable = isinstance(name, str) and NAME.fullmatch(name)
    if not usable or name in (DATA, *RIVALS):
      raise ValueError(
        f"{path} names a variant {name!r}; a name is a folder's: letters, digits and "
        f"+ _ . - and none of {', '.join((DATA, *RIVALS))}."
      )
  return found


def choose(known: Sequence[str], text: str) -> tuple[str, ...]:
  """The known names that the text lists with commas between, in the known order.

  Raises:
    ValueError: a name is not known, or there is none.
  """
  named = [each.strip() for each in text.split(",") if each.strip()]
  unknown = [name for name in named if name not in known]
  if unknown or not named:
    hint = listing.near(unknown, known)
    raise ValueError(f"--only is {text!r}; there are {', '.join(known)}.{hint}")
  return tuple(name for name in known if name in named)


def changed(
  config: ml_collections.ConfigDict, name: str, fields: Fields
) -> ml_collections.ConfigDict:
  """A locked copy of the config with the variant's fields.

  Raises:
    ValueError: a field does not exist, may not vary, or has a value of another type or
      out of its range; names the variant.
  """
  known = settings.leaves(config)
  checked = {
    field: _checked(known, name, field, value) for field, value in fields.items()
  }
  found = settings.assigned(config, checked)
  try:
    settings.validate(found)
  except ValueError as error:
    raise ValueError(f"Variant {name!r}: {error}") from error
  return found


def flag(field: str, value: Any) -> str:
  """The field as a flag that the training command reads back as this value."""
  return f"--config.{field}={value if isinstance(value, str) else repr(value)}"


def _checked(known: Fields, name: str, field: str, value: Any) -> Any:
  """The value as the config holds it, if the field may be set to it."""
  if field in FIXED:
    raise ValueError(
      f"Variant {name!r} sets {field}; that is one for all variants of a sweep: "
      "--seeds, --categories and --config.data.root choose it."
    )
  if field not in known:
    hint = listing.near([field], tuple(known))
    raise ValueError(
      f"Variant {name!r} sets {field!r}, which is no field of the config.{hint}"
    )
  held = known[field]
  if isinstance(held, float) and type(value) is int:
    return float(value)
  if type(value) is not type(held):
    raise ValueError(
      f"Variant {name!r} sets {field} to {value!r}; expected a value like {held!r}, "
      f"of type {type(held).__name__}."
    )
  return value
