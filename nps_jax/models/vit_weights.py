"""Which tensor of a file under transformers' names is which parameter of a ViT."""

from collections.abc import Mapping
import pathlib

from flax import traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Float
import numpy as np

from nps_jax import geometry
from nps_jax.models import vit

Path = tuple[str, ...]
Tensors = Mapping[str, np.ndarray]

FIRST = "embeddings.cls_token"  # that any such file has
# Our parameter or layer -> the source's; {}: a block's number, which is 1 less there.
TABLE = {
  "cls": FIRST,
  "places": "embeddings.position_embeddings",
  "registers": "embeddings.register_tokens",
  "patch": "embeddings.patch_embeddings.projection",
  "norm": "layernorm",
  "norm1": "encoder.layer.{}.norm1",
  "query": "encoder.layer.{}.attention.attention.query",
  "key": "encoder.layer.{}.attention.attention.key",
  "value": "encoder.layer.{}.attention.attention.value",
  "out": "encoder.layer.{}.attention.output.dense",
  "scale1": "encoder.layer.{}.layer_scale1.lambda1",
  "norm2": "encoder.layer.{}.norm2",
  "widen": "encoder.layer.{}.mlp.fc1",
  "narrow": "encoder.layer.{}.mlp.fc2",
  "scale2": "encoder.layer.{}.layer_scale2.lambda1",
}
PARTS = {"kernel": "weight", "scale": "weight", "bias": "bias"}
# The place of each of the source's axes in ours: of linear layers and of convolutions.
AXES = {2: (1, 0), 4: (2, 3, 1, 0)}
IGNORED = ("embeddings.mask_token", "classifier.weight", "classifier.bias")


def deepest_level(tensors: Tensors) -> int:
  """The last block of which the file holds any tensor; at least the first."""
  head = "encoder.layer."
  numbers = [key[len(head) :].split(".")[0] for key in tensors if key.startswith(head)]
  return max((int(at) + 1 for at in numbers if at.isdecimal()), default=1)


def deeper(name: str, deepest: int) -> tuple[str, ...]:
  """What the names of tensors of deeper blocks begin with."""
  blocks = range(deepest, geometry.encoder(name).depth)
  return tuple(f"encoder.layer.{block}." for block in blocks)


def shapes(name: str, deepest: int) -> dict[Path, tuple[int, ...]]:
  """The shape of every parameter up to a block."""
  kind = geometry.encoder(name)
  images = jnp.zeros((1, kind.patch, kind.patch, 3))
  model = vit.ViT(kind, deepest)
  params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
  flat = traverse_util.flatten_dict(params)
  return {path: leaf.shape for path, leaf in flat.items()}


def source_name(path: Path) -> str:
  """The source's name for one of our parameters."""
  block = [int(part[len("block") :]) - 1 for part in path if part.startswith("block")]
  layer = path[len(block) :]
  name = TABLE[layer[0]].format(*block)
  return ".".join([name, *(PARTS[part] for part in layer[1:])])


def expected_shapes(name: str, deepest: int) -> dict[str, tuple[int, ...]]:
  """Every tensor that a file of this encoder must hold, with its shape."""
  expected = {}
  for path, shape in shapes(name, deepest).items():
    kernel = path[-1] == "kernel"
    axes = np.argsort(AXES[len(shape)]) if kernel else range(len(shape))
    expected[source_name(path)] = tuple(shape[axis] for axis in axes)
  return expected


def convert(
  tensors: Tensors, name: str, deepest: int, path: pathlib.Path
) -> dict[Path, Float[np.ndarray, "..."]]:
  """The parameters in float32, from tensors that are as expected.

  Raises:
    ValueError: one is not finite.
  """
  params = {}
  for target in shapes(name, deepest):
    source = source_name(target)
    values = tensors[source].astype(np.float32)
    if not np.isfinite(values).all():
      raise ValueError(
        f"{path}: {source} holds values that are not finite. The file is damaged."
      )
    if target[-1] == "kernel":
      values = values.transpose(AXES[values.ndim])
    params[target] = np.ascontiguousarray(values)
  return params


def random(
  name: str, deepest: int, generator: np.random.Generator
) -> dict[Path, Float[np.ndarray, "..."]]:
  """Parameters for trials without a file: each layer keeps its input's spread."""
  params = {}
  for path, shape in shapes(name, deepest).items():
    if path[-1] == "kernel":
      spread = 1 / np.sqrt(np.prod(shape[:-1]))
      params[path] = generator.standard_normal(shape, np.float32) * np.float32(spread)
    elif path[0] in ("cls", "places", "registers"):
      params[path] = generator.standard_normal(shape, np.float32) * np.float32(0.02)
    else:
      scale = path[-1] in ("scale", "scale1", "scale2")
      params[path] = np.full(shape, float(scale), np.float32)
  return params
