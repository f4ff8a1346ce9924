"""Trees of arrays that a run is used with, as safetensors with a checksum."""

from collections.abc import Mapping
import pathlib
from typing import Any

from absl import logging
from flax import traverse_util
import numpy as np
import safetensors.numpy

from nps_jax import distributed
from nps_jax.runs import integrity

FROZEN = "frozen.safetensors"  # what no training changes: encoder, contexts
MODULES = "modules.safetensors"  # what the training has made
AGAIN = "Start the same training command again: it writes both anew, and does no more."


def write(path: pathlib.Path, tree: Mapping[str, Any]) -> None:
  """Stores nested dicts of arrays."""
  flat = traverse_util.flatten_dict(tree, sep="/")
  flat = {name: np.array(leaf, order="C") for name, leaf in flat.items()}
  integrity.write(path, safetensors.numpy.save(flat))


def write_once(path: pathlib.Path, tree: Mapping[str, Any]) -> None:
  """Stores them where no intact file is; the lead host does it."""
  if not distributed.is_lead() or integrity.intact(path):
    return
  if path.exists():
    logging.warning("%s is damaged: it is written anew.", path)
  write(path, tree)


def read(path: pathlib.Path) -> dict[str, Any]:
  """The nested dicts that were stored.

  Raises:
    FileNotFoundError: there is no such file, or no sum of it.
    ValueError: the file is not the one that was written.
  """
  integrity.read(path, AGAIN)
  flat = safetensors.numpy.load_file(path)  # unlike `load`, it has bfloat16
  return traverse_util.unflatten_dict(flat, sep="/")
