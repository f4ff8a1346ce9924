"""Which tensors of a file under torchvision's names are which parameters of a ResNet.

Normalisation is folded into the convolutions: running statistics never change here.
"""

from collections.abc import Mapping
import pathlib

from flax import traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Float
import numpy as np

from nps_jax import geometry
from nps_jax.models import encoder

Path = tuple[str, ...]
Tensors = Mapping[str, np.ndarray]

EPS = 1e-5  # of torchvision's batch normalisation
FIRST = "conv1.weight"  # that any such file has
IGNORED = ("fc.weight", "fc.bias")  # the classifier
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


def deepest_level(tensors: Tensors) -> int:
  """The deepest level of which the file holds any tensor."""
  return max(
    (
      level
      for level in range(2, encoder.DEEPEST + 1)
      if any(key.startswith(f"layer{level - 1}.") for key in tensors)
    ),
    default=1,
  )


def deeper(name: str, deepest: int) -> tuple[str, ...]:
  """What the names of tensors of deeper levels begin with."""
  return tuple(f"layer{level}." for level in range(deepest, encoder.DEEPEST))


def kernel_shapes(name: str, deepest: int) -> dict[Path, tuple[int, ...]]:
  """The shape of each of the encoder's kernels, height x width x in x out."""
  model, side = encoder.Encoder(name, deepest), geometry.ResNet.multiple
  images = jnp.zeros((1, side, side, 3))
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


def convert(
  tensors: Tensors, name: str, deepest: int, path: pathlib.Path
) -> dict[Path, Float[np.ndarray, "..."]]:
  """The parameters, from tensors that are as expected.

  Raises:
    ValueError: one is not finite.
  """
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
  return params


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


def random(
  name: str, deepest: int, generator: np.random.Generator
) -> dict[Path, Float[np.ndarray, "..."]]:
  """He-initialised parameters.

  The last convolution of each of a layer's n blocks is divided by the root of n, which
  keeps values in range through a hundred layers without normalisation.
  """
  layers, params = encoder.plans(name, deepest), {}
  for path, shape in kernel_shapes(name, deepest).items():
    scale = np.sqrt(2 / np.prod(shape[:3]))
    if path[0] != "stem":
      blocks = layers[int(path[0][len("layer")]) + 1]
      scale /= np.sqrt(len(blocks)) if path[-1] == f"conv{len(blocks[0])}" else 1
    kernel = generator.standard_normal(shape, np.float32) * np.float32(scale)
    params[(*path, "kernel")] = kernel
    params[(*path, "bias")] = np.zeros(shape[3], np.float32)
  return params
