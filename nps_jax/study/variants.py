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

from nps_jax import allowed
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
  fields_of = module.get_variants()
  if not isinstance(fields_of, dict) or not all(
    isinstance(fields, dict) for fields in fields_of.values()
  ):
    raise ValueError(
      f"get_variants() of {path} must return a dict of names, each with a dict of "
      'fields, such as {"small": {"codebook.size": 64}}.'
    )
  if not fields_of:
    raise ValueError(f"get_variants() of {path} returns no variant.")
  for name in fields_of:
    usable = isinstance(name, str) and NAME.fullmatch(name)
    if not usable or name in (DATA, *RIVALS):
      raise ValueError(
        f"{path} names a variant {name!r}; a name is a folder's: letters, digits and "
        f"+ _ . - and none of {', '.join((DATA, *RIVALS))}."
      )
  return fields_of


def choose(variants: Sequence[str], text: str) -> tuple[str, ...]:
  """Those variants whose names the text lists with commas between, in their own order.

  Raises:
    ValueError: a name is no variant's, or there is none.
  """
  chosen = [name.strip() for name in text.split(",") if name.strip()]
  unknown = [name for name in chosen if name not in variants]
  if unknown or not chosen:
    hint = listing.near(unknown, variants)
    raise ValueError(f"--only is {text!r}; there are {', '.join(variants)}.{hint}")
  return tuple(name for name in variants if name in chosen)


def changed(
  config: ml_collections.ConfigDict, name: str, fields: Fields
) -> ml_collections.ConfigDict:
  """A locked copy of the config with the variant's fields.

  Raises:
    ValueError: a field does not exist, may not vary, or has a value of another type or
      out of its range; names the variant.
  """
  current = settings.leaves(config)
  checked = {
    field: _checked(current, name, field, value) for field, value in fields.items()
  }
  varied = settings.assigned(config, checked)
  try:
    allowed.validate(varied)
  except ValueError as error:
    raise ValueError(f"Variant {name!r}: {error}") from error
  return varied


def flag(field: str, value: Any) -> str:
  """The field as a flag that the training command reads back as this value."""
  return f"--config.{field}={value if isinstance(value, str) else repr(value)}"


def _checked(current: Fields, name: str, field: str, value: Any) -> Any:
  """The value as the config holds it, if the field may be set to it.

  Args:
    current: the config's fields with their values.
    name: the variant's.
  """
  if field in FIXED:
    raise ValueError(
      f"Variant {name!r} sets {field}; that is one for all variants of a sweep: "
      "--seeds, --categories and --config.data.root choose it."
    )
  if field not in current:
    hint = listing.near([field], tuple(current))
    raise ValueError(
      f"Variant {name!r} sets {field!r}, which is no field of the config.{hint}"
    )
  default = current[field]
  if isinstance(default, float) and type(value) is int:
    return float(value)
  if type(value) is not type(default):
    raise ValueError(
      f"Variant {name!r} sets {field} to {value!r}; expected a value like {default!r}, "
      f"of type {type(default).__name__}."
    )
  return value
