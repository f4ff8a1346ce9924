"""Keeps what a run has learned in files: its modules, its calibrations."""

from collections.abc import Mapping
import io
import pathlib
from typing import Any

from flax import serialization
from flax import traverse_util
import numpy as np

from nps_jax import gaussian
from nps_jax import scoring
from nps_jax.models import codebook
from nps_jax.models import counts
from nps_jax.models import memory
from nps_jax.runs import arrays
from nps_jax.runs import integrity

Tree = Any


def save_modules(path: pathlib.Path, variables: Tree) -> None:
  """Writes the modules' variables at their last step, with a checksum."""
  arrays.write(path, serialization.to_state_dict(variables))


def load_modules(path: pathlib.Path) -> Tree:
  """The variables that `save_modules` wrote.

  Raises:
    FileNotFoundError, ValueError: the file or its sum is missing, or one is damaged.
  """
  variables = {"params": {}, "codes": {}} | arrays.read(path)  # where there are none
  return variables | {"codes": _states(variables["codes"])}


def _states(codes: Tree) -> Tree:
  """The codebooks' states where the file has dicts of their fields."""
  if set(codes) == set(codebook.CodeState._fields):
    return codebook.CodeState(**codes)
  return {name: _states(inner) for name, inner in codes.items()}


def save(path: pathlib.Path, calibrations: Mapping[str, scoring.Calibration]) -> None:
  """Writes the categories' calibrations as one .npz of named arrays, with its sum."""
  flat = {}
  for category, calibration in calibrations.items():
    for name, leaf in traverse_util.flatten_dict(_nested(calibration), sep="/").items():
      if leaf is not None:
        flat[f"{category}/{name}"] = leaf
  buffer = io.BytesIO()
  np.savez(buffer, **flat)
  integrity.write(path, buffer.getvalue())


def _nested(calibration: scoring.Calibration) -> dict:
  """The calibration as dicts of arrays."""
  nested = calibration._asdict()
  nested["gaussians"] = {
    name: normal._asdict() for name, normal in calibration.gaussians.items()
  }
  nested["priors"] = calibration.priors._asdict()
  for name, prior in nested["priors"].items():
    nested["priors"][name] = None if prior is None else prior._asdict()
  return nested


def load(path: pathlib.Path, remedy: str) -> dict[str, scoring.Calibration]:
  """The calibrations that `save` wrote, by category.

  Args:
    remedy: what to do where the file is damaged, for the message.

  Raises:
    FileNotFoundError, ValueError: the file or its sum is missing, or one is damaged.
  """
  with np.load(io.BytesIO(integrity.read(path, remedy)), allow_pickle=False) as stored:
    flat = {tuple(name.split("/")): stored[name] for name in stored.files}
  empty = {field: {} for field in scoring.Calibration._fields} | {"usual": None}
  calibrations = {}
  for category, parts in traverse_util.unflatten_dict(flat).items():
    priors = dict(parts.get("priors", {}))
    bare = isinstance(priors.get("memory", {}), np.ndarray)
    if "unit" not in parts or bare or "owners" not in priors.get("memory", ("owners",)):
      raise ValueError(
        f"{path} is of an earlier version. Remove it and start the same training "
        "command again: it calibrates anew, and trains nothing again."
      )
    fields = empty | parts  # empty dicts leave nothing in the file
    kinds = {"memory": memory.Memory, "vocabulary": counts.Vocabulary}
    priors = {name: kinds[name](**prior) for name, prior in priors.items()}
    fields["priors"] = scoring.Priors(**priors)
    fields["gaussians"] = {
      name: gaussian.Gaussian(**{**normal, "rest": float(normal["rest"])})
      for name, normal in fields["gaussians"].items()
    }
    for plain in ("map_weights", "unit"):
      fields[plain] = {name: float(value) for name, value in fields[plain].items()}
    calibrations[category] = scoring.Calibration(**fields)
  return calibrations
