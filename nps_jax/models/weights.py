"""Pretrained weights -> the encoder's parameters; strict, without pickle.

`python -m nps_jax.models.weights --fetch=resnet101` fills the hub's cache ahead of
time, `--check=FILE` lists what a file holds against what each encoder needs.
"""

import argparse
from collections.abc import Mapping, Sequence
import hashlib
import pathlib
from typing import Any, NamedTuple

from absl import logging
from flax import traverse_util
import numpy as np

from nps_jax import geometry
from nps_jax.data import listing
from nps_jax.models import encoder
from nps_jax.models import resnet_weights
from nps_jax.models import vit_weights
from nps_jax.pretrained import encoders
from nps_jax.pretrained import tensorfile

Tree = Any  # a nested dict of arrays
Tensors = Mapping[str, np.ndarray]

BUILTIN = pathlib.Path(__file__).with_name("builtin.safetensors")  # its card: .md
SEED = 2506_18544  # of random weights
FAMILIES = {geometry.ResNet: resnet_weights, geometry.ViT: vit_weights}


class Loaded(NamedTuple):
  """Parameters of the frozen encoder, and where they come from."""

  params: Tree  # float32
  deepest: int
  identity: dict[str, str | int]  # name, file, sha256, deepest


def load(source: str, name: str, deepest: int) -> Loaded:
  """The encoder's parameters up to a level, normalisation folded in.

  Args:
    source: a .safetensors file with torchvision's names (of a ResNet) or transformers'
      (of a DINOv2), "hub", "builtin" or "random".
    name: of the encoder, a key of geometry.ENCODERS.
    deepest: a level of it, or 0 for the deepest that the source has.

  Raises:
    ValueError: an unknown name or level; or the file is damaged, a pickle, or not this
      encoder's.
    FileNotFoundError: there is no such file, or the hub is out of reach.
  """
  whole = max(geometry.encoder(name).widths)
  encoder.check_level(name, deepest or whole)
  if source == "":
    raise ValueError(
      "config.encoder.weights is empty; expected a .safetensors file with the names "
      f"of torchvision or transformers, 'hub' ({encoders.HUB[name].repo} from the hub "
      "or its cache), 'builtin' (a resnet18 up to f4 that needs no download) or "
      "'random'."
    )
  if source == "random":
    logging.warning(
      "RANDOM ENCODER WEIGHTS: LOGICAL ANOMALIES STAY MOSTLY HIDDEN WITHOUT PRETRAINED "
      "FEATURES, AND SCORES SAY LITTLE ABOUT THE METHOD. FOR REAL RESULTS SET "
      "config.encoder.weights TO A FILE."
    )
    return random(name, deepest or whole)
  path = locate(source, name)
  content = tensorfile.read(path)
  tensors = tensorfile.decode(content, path, ignored)
  there = deepest_level(tensors, path)
  if name not in (fitting := candidates(tensors, path)):
    raise ValueError(
      f"{path} is no file of {name}: by its tensors it is of {listing.some(fitting)}. "
      "Change config.encoder.name or config.encoder.weights."
    )
  deepest = deepest or there
  params = convert(tensors, name, deepest, path)
  digest = hashlib.sha256(content).hexdigest()
  identity = {"name": name, "file": path.name, "sha256": digest, "deepest": deepest}
  return Loaded(params, deepest, identity)


def locate(source: str, name: str) -> pathlib.Path:
  """The file that the setting means; FileNotFoundError if the hub is out of reach."""
  if source == "builtin":
    return BUILTIN
  return encoders.fetch(name) if source == "hub" else pathlib.Path(source).expanduser()


def ignored(key: str) -> bool:
  """Whether an encoder has no use for the tensor, whatever its depth."""
  return key.endswith(".num_batches_tracked") or any(
    key in tables.IGNORED for tables in FAMILIES.values()
  )


def family(tensors: Tensors, path: pathlib.Path) -> type:
  """Which kind of encoder the file is of, a key of FAMILIES.

  Raises:
    ValueError: none.
  """
  for kind, tables in FAMILIES.items():
    if tables.FIRST in tensors:
      return kind
  raise ValueError(
    f"{path} holds no {resnet_weights.FIRST}, so it is no ResNet under torchvision's "
    f"names, and no {vit_weights.FIRST}, so it is no DINOv2 under transformers'. It "
    f"holds: {listing.some(sorted(tensors))}."
  )


def candidates(tensors: Tensors, path: pathlib.Path) -> list[str]:
  """The encoders that are of the file's kind."""
  kind = family(tensors, path)
  return [name for name, each in geometry.ENCODERS.items() if isinstance(each, kind)]


def deepest_level(tensors: Tensors, path: pathlib.Path) -> int:
  """The deepest level of which the file holds any tensor."""
  return FAMILIES[family(tensors, path)].deepest_level(tensors)


def expected_shapes(name: str, deepest: int) -> dict[str, tuple[int, ...]]:
  """Every tensor that a file of this encoder must hold, with its shape."""
  return FAMILIES[type(geometry.encoder(name))].expected_shapes(name, deepest)


def convert(tensors: Tensors, name: str, deepest: int, path: pathlib.Path) -> Tree:
  """The encoder's parameters, normalisation folded in.

  Raises:
    ValueError: a tensor is missing, unused, of another shape or not finite.
  """
  tables = FAMILIES[type(geometry.encoder(name))]
  deeper = tables.deeper(name, deepest)
  tensors = {
    key: tensor for key, tensor in tensors.items() if not key.startswith(deeper)
  }
  if complaint := differences(tensors, expected_shapes(name, deepest)):
    level = min(deepest, deepest_level(tensors, path))
    fitting = [
      candidate
      for candidate in candidates(tensors, path)
      if not differences(tensors, expected_shapes(candidate, level))
    ]
    raise ValueError(
      f"{path} does not hold {name} up to level {deepest}. {complaint} Up to level "
      f"{level} it fits: {listing.some(fitting)}. Change "
      "config.encoder.name, config.encoder.deepest or config.encoder.weights."
    )
  return traverse_util.unflatten_dict(tables.convert(tensors, name, deepest, path))


def differences(tensors: Tensors, expected: Mapping[str, tuple[int, ...]]) -> str:
  """How the tensors differ from the expected ones; empty if they do not."""
  parts = _differing(tensors, expected).items()
  return " ".join(f"{title}: {listing.some(keys)}." for title, keys in parts)


def _differing(
  tensors: Tensors, expected: Mapping[str, tuple[int, ...]]
) -> dict[str, list[str]]:
  """The tensors that differ, by the way in which they do; no empty list."""
  shapes = [
    f"{key} {tensors[key].shape}, expected {shape}"
    for key, shape in expected.items()
    if key in tensors and tensors[key].shape != shape
  ]
  missing = [key for key in expected if key not in tensors]
  unused = sorted(key for key in tensors if key not in expected)
  parts = {"Other shapes": shapes, "Missing": missing, "Not used": unused}
  return {title: keys for title, keys in parts.items() if keys}


def random(name: str, deepest: int) -> Loaded:
  """Random parameters, the same every time, for trials without a file."""
  tables = FAMILIES[type(geometry.encoder(name))]
  params = tables.random(name, deepest, np.random.default_rng(SEED))
  digest = hashlib.sha256()
  for path, values in params.items():
    if path[-1] != "bias":  # all 0
      digest.update(values.tobytes())
  sha256 = digest.hexdigest()
  identity = {"name": name, "file": "random", "sha256": sha256, "deepest": deepest}
  return Loaded(traverse_util.unflatten_dict(params), deepest, identity)


def check(path: pathlib.Path) -> tuple[str, bool]:
  """What a file holds against what each encoder needs, and whether one of them fits.

  Raises:
    ValueError, FileNotFoundError: as `load` does of a file that is no encoder's.
  """
  content = tensorfile.read(path)
  tensors = tensorfile.decode(content, path, ignored)
  level = deepest_level(tensors, path)
  size = sum(tensor.size for tensor in tensors.values())
  lines = [
    f"{path}: {len(tensors)} tensors of {size / 1e6:.1f} million values, up to level "
    f"{level} (f{level}); sha256 {hashlib.sha256(content).hexdigest()}"
  ]
  differing = {
    name: _differing(tensors, expected_shapes(name, level))
    for name in candidates(tensors, path)
  }
  for name, parts in differing.items():
    counts = ", ".join(f"{title.lower()} {len(keys)}" for title, keys in parts.items())
    lines.append(f"  {name}: {counts or f'fits up to level {level}'}")
  closest = min(differing, key=lambda name: sum(map(len, differing[name].values())))
  if complaint := differences(tensors, expected_shapes(closest, level)):
    lines.append(f"Closest is {closest}. {complaint}")
  return "\n".join(lines), not complaint


def main(arguments: Sequence[str] | None = None) -> None:
  """Fetches an encoder's weights ahead of time, or checks a file."""
  parser = argparse.ArgumentParser(description=main.__doc__)
  task = parser.add_mutually_exclusive_group(required=True)
  names = tuple(geometry.ENCODERS)
  task.add_argument("--fetch", choices=names, help="from the hub into its cache")
  task.add_argument("--check", type=pathlib.Path, metavar="FILE", help="of safetensors")
  flags = parser.parse_args(arguments)
  try:
    path = encoders.fetch(flags.fetch) if flags.fetch else flags.check
    report, fits = check(path)
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error
  print(report)
  if not fits:
    raise SystemExit("Error: no encoder can use this file.")


if __name__ == "__main__":
  main()
