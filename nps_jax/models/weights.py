"""Pretrained ResNet weights -> the encoder's parameters; strict, without pickle.

`python -m nps_jax.models.weights --fetch=resnet101` fills the hub's cache ahead of
time, `--check=FILE` lists what a file holds against what each encoder needs.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
import hashlib
import pathlib
from typing import Any, NamedTuple

from absl import logging
from flax import traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Float
import numpy as np

from nps_jax.data import listing
from nps_jax.models import encoder
from nps_jax.pretrained import hub
from nps_jax.pretrained import tensorfile

Tree = Any  # a nested dict of arrays
Path = tuple[str, ...]
Tensors = Mapping[str, np.ndarray]

EPS = 1e-5  # of torchvision's batch normalisation
HUB_FILE = "model.safetensors"
HUB = {name: f"timm/{name}.tv_in1k" for name in encoder.ARCHITECTURES}
BUILTIN = pathlib.Path(__file__).with_name("builtin.safetensors")  # its card: .md
SEED = 2506_18544  # of random weights
IGNORED = ("fc.weight", "fc.bias")  # the classifier; and every num_batches_tracked
NORM = ("weight", "bias", "running_mean", "running_var")
# Our convolution -> the source's convolution and the normalisation behind it; {}: a
# block, which is layer1_0 here and layer1.0 there.
TABLE = {
  "stem": ("conv1", "bn1"),
  "conv1": ("{}.conv1", "{}.bn1"),
  "conv2": ("{}.conv2", "{}.bn2"),
  "conv3": ("{}.conv3", "{}.bn3"),
  "shortcut": ("{}.downsample.0", "{}.downsample.1"),
}


class Loaded(NamedTuple):
  """Parameters of the frozen encoder, and where they come from."""

  params: Tree  # float32
  deepest: int
  identity: dict[str, str | int]  # name, file, sha256, deepest


def load(source: str, name: str, deepest: int) -> Loaded:
  """The encoder's parameters up to a level, normalisation folded in.

  Args:
    source: a .safetensors file with torchvision's names, "hub", "builtin" or "random".
    name: of the encoder, a key of encoder.ARCHITECTURES.
    deepest: 1..5, or 0 for the deepest that the source has.

  Raises:
    ValueError: an unknown name or level; or the file is damaged, a pickle, or not this
      encoder's.
    FileNotFoundError: there is no such file, or the hub is out of reach.
  """
  encoder.plans(name, deepest or encoder.DEEPEST)
  if source == "":
    raise ValueError(
      "config.encoder.weights is empty; expected a .safetensors file with "
      f"torchvision's names, 'hub' ({HUB[name]} from the hub or its cache), 'builtin' "
      "(a resnet18 up to f4 that needs no download) or 'random'."
    )
  if source == "random":
    logging.warning(
      "RANDOM ENCODER WEIGHTS: LOGICAL ANOMALIES STAY MOSTLY HIDDEN WITHOUT PRETRAINED "
      "FEATURES, AND SCORES SAY LITTLE ABOUT THE METHOD. FOR REAL RESULTS SET "
      "config.encoder.weights TO A FILE."
    )
    return random(name, deepest or encoder.DEEPEST)
  path = locate(source, name)
  content = tensorfile.read(path)
  tensors = tensorfile.decode(content, path, ignored)
  deepest = deepest or deepest_level(tensors, path)
  params = convert(tensors, name, deepest, path)
  digest = hashlib.sha256(content).hexdigest()
  identity = {"name": name, "file": path.name, "sha256": digest, "deepest": deepest}
  return Loaded(params, deepest, identity)


def locate(source: str, name: str) -> pathlib.Path:
  """The file that the setting means; FileNotFoundError if the hub is out of reach."""
  if source == "builtin":
    return BUILTIN
  return from_hub(name) if source == "hub" else pathlib.Path(source).expanduser()


def from_hub(name: str) -> pathlib.Path:
  """The encoder's file in the hub's cache, downloaded if need be."""
  if path := hub.fetch(HUB[name], HUB_FILE):
    return path
  raise FileNotFoundError(
    f"config.encoder.weights is 'hub', but {HUB_FILE} of {HUB[name]} is not in the "
    "hub's cache and the hub cannot be reached or does not have it. On a machine with "
    f"a network: `hf download {HUB[name]} {HUB_FILE} --local-dir .`; bring the file "
    "here and set config.encoder.weights to its path."
  )


def ignored(key: str) -> bool:
  """Whether an encoder has no use for the tensor, whatever its depth."""
  return key in IGNORED or key.endswith(".num_batches_tracked")


def deepest_level(tensors: Tensors, path: pathlib.Path) -> int:
  """The deepest level of which the file holds any tensor."""
  if "conv1.weight" not in tensors:
    raise ValueError(
      f"{path} holds no conv1.weight, so it is no ResNet under torchvision's names. "
      f"It holds: {listing.some(sorted(tensors))}."
    )
  levels = [
    level for level in range(2, encoder.DEEPEST + 1) if _has_level(tensors, level)
  ]
  return max(levels, default=1)


def _has_level(tensors: Iterable[str], level: int) -> bool:
  return any(key.startswith(f"layer{level - 1}.") for key in tensors)


def kernel_shapes(name: str, deepest: int) -> dict[Path, tuple[int, ...]]:
  """The shape of each of the encoder's kernels, height x width x in x out."""
  model = encoder.Encoder(name, deepest)
  images = jnp.zeros((1, encoder.MULTIPLE, encoder.MULTIPLE, 3))
  params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
  flat = traverse_util.flatten_dict(params)
  return {path[:-1]: leaf.shape for path, leaf in flat.items() if path[-1] == "kernel"}


def source_names(path: Path) -> tuple[str, str]:
  """The source's names for one of our convolutions and for its normalisation."""
  conv, norm = TABLE[path[-1]]
  block = path[0].replace("_", ".")
  return conv.format(block), norm.format(block)


def expected_shapes(name: str, deepest: int) -> dict[str, tuple[int, ...]]:
  """Every tensor that a file of this encoder must hold, with its shape."""
  expected = {}
  for path, (height, width, inputs, outputs) in kernel_shapes(name, deepest).items():
    conv, norm = source_names(path)
    expected[f"{conv}.weight"] = (outputs, inputs, height, width)
    expected |= {f"{norm}.{part}": (outputs,) for part in NORM}
  return expected


def convert(tensors: Tensors, name: str, deepest: int, path: pathlib.Path) -> Tree:
  """The encoder's parameters, normalisation folded in.

  Raises:
    ValueError: a tensor is missing, unused, of another shape or not finite.
  """
  deeper = tuple(f"layer{level}." for level in range(deepest, encoder.DEEPEST))
  tensors = {
    key: tensor for key, tensor in tensors.items() if not key.startswith(deeper)
  }
  if complaint := differences(tensors, expected_shapes(name, deepest)):
    level = min(deepest, deepest_level(tensors, path))
    fitting = [
      candidate
      for candidate in encoder.ARCHITECTURES
      if not differences(tensors, expected_shapes(candidate, level))
    ]
    raise ValueError(
      f"{path} does not hold {name} up to level {deepest}. {complaint} Up to level "
      f"{level} it fits: {listing.some(fitting)}. Change "
      "config.encoder.name, config.encoder.deepest or config.encoder.weights."
    )
  params = {}
  for target in kernel_shapes(name, deepest):
    conv, norm = source_names(target)
    kernel, bias = fold(
      tensors[f"{conv}.weight"],
      gamma=tensors[f"{norm}.weight"],
      beta=tensors[f"{norm}.bias"],
      mean=tensors[f"{norm}.running_mean"],
      var=tensors[f"{norm}.running_var"],
    )
    if not (np.isfinite(kernel).all() and np.isfinite(bias).all()):
      raise ValueError(
        f"{path}: {conv} with {norm} gives values that are not finite: a NaN, an "
        "infinity or a negative variance. The file is damaged."
      )
    params[(*target, "kernel")], params[(*target, "bias")] = kernel, bias
  return traverse_util.unflatten_dict(params)


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


def fold(
  kernel: Float[np.ndarray, "o i y x"],
  gamma: Float[np.ndarray, " o"],
  beta: Float[np.ndarray, " o"],
  mean: Float[np.ndarray, " o"],
  var: Float[np.ndarray, " o"],
) -> tuple[Float[np.ndarray, "y x i o"], Float[np.ndarray, " o"]]:
  """Kernel and bias of convolution and normalisation as one; summed up in float64."""
  kernel, gamma, beta, mean, var = (
    tensor.astype(np.float64) for tensor in (kernel, gamma, beta, mean, var)
  )
  with np.errstate(invalid="ignore", divide="ignore"):
    scale = gamma / np.sqrt(var + EPS)
  folded = kernel.transpose(2, 3, 1, 0) * scale[None, None, None, :]
  return folded.astype(np.float32), (beta - mean * scale).astype(np.float32)


def random(name: str, deepest: int) -> Loaded:
  """He-initialised parameters, the same every time, for trials without a file.

  The last convolution of each of a layer's n blocks is divided by the root of n, which
  keeps values in range through a hundred layers without normalisation.
  """
  generator, digest, params = np.random.default_rng(SEED), hashlib.sha256(), {}
  layers = encoder.plans(name, deepest)
  for path, shape in kernel_shapes(name, deepest).items():
    scale = np.sqrt(2 / np.prod(shape[:3]))
    if path[0] != "stem":
      blocks = layers[int(path[0][len("layer")]) + 1]
      scale /= np.sqrt(len(blocks)) if path[-1] == f"conv{len(blocks[0])}" else 1
    kernel = generator.standard_normal(shape, np.float32) * np.float32(scale)
    digest.update(kernel.tobytes())
    params[(*path, "kernel")] = kernel
    params[(*path, "bias")] = np.zeros(shape[3], np.float32)
  sha256 = digest.hexdigest()
  identity = {"name": name, "file": "random", "sha256": sha256, "deepest": deepest}
  return Loaded(traverse_util.unflatten_dict(params), deepest, identity)


def check(path: pathlib.Path) -> tuple[str, bool]:
  """What a file holds against what each encoder needs, and whether one of them fits.

  Raises:
    ValueError, FileNotFoundError: as `load` does of a file that is no ResNet's.
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
    for name in encoder.ARCHITECTURES
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
  names = tuple(encoder.ARCHITECTURES)
  task.add_argument("--fetch", choices=names, help="from the hub into its cache")
  task.add_argument("--check", type=pathlib.Path, metavar="FILE", help="of safetensors")
  flags = parser.parse_args(arguments)
  try:
    path = from_hub(flags.fetch) if flags.fetch else flags.check
    report, fits = check(path)
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error
  print(report)
  if not fits:
    raise SystemExit("Error: no encoder can use this file.")


if __name__ == "__main__":
  main()
