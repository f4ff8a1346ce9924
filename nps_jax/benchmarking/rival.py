"""The bare encoder once more, in PyTorch: the yardstick of another framework.

This alone imports torch, where `benchmark --against=torch` asks for it and it is there.
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
import numpy as np

from nps_jax import geometry
from nps_jax.models import encoder

Tree = Any  # a nested dict of arrays
CLOSE = 1e-3  # of the largest value of a level: by how much the two may differ


def available() -> Any:
  """The module torch.

  Raises:
    ValueError: it is not installed.
  """
  try:
    import torch  # noqa: PLC0415 - no dependency of this package
  except ImportError as error:
    raise ValueError(
      "--against=torch needs PyTorch, which is not installed here and is no dependency "
      "of this package: `pip install torch`, or leave the flag out."
    ) from error
  return torch


class Encoder:
  """The encoder with the same parameters, a call (images) -> levels."""

  def __init__(self, frozen: Tree, name: str, deepest: int):
    """Takes the parameters of nps_jax.models.encoder over.

    Raises:
      ValueError: PyTorch is not there, or the encoder is no ResNet.
    """
    if not isinstance(geometry.encoder(name), geometry.ResNet):
      raise ValueError(f"--against=torch knows ResNets; this run's encoder is {name}.")
    self._torch = available()
    cuda = self._torch.cuda.is_available()
    self._place = self._torch.device("cuda" if cuda else "cpu")
    self._plans = encoder.plans(name, deepest)
    self._stem = self._convolution(frozen["stem"])
    self._blocks = {
      block: {part: self._convolution(leaf) for part, leaf in parts.items()}
      for block, parts in frozen.items()
      if block != "stem"
    }
    self._mean, self._std = (
      self.tensor(np.float32(values)).reshape(1, 3, 1, 1)
      for values in (encoder.MEAN, encoder.STD)
    )

  def tensor(self, values: Any) -> Any:
    """The values where it computes."""
    return self._torch.from_numpy(np.array(values)).to(self._place)

  def _convolution(self, leaf: Tree) -> tuple[Any, Any]:
    kernel = np.transpose(np.asarray(leaf["kernel"]), (3, 2, 0, 1))
    return self.tensor(kernel).contiguous(), self.tensor(leaf["bias"])

  def __call__(self, images: Any) -> dict[int, Any]:
    """The levels of a tensor [b h w 3] of bytes, channels first; waits for them."""
    with self._torch.inference_mode():
      levels = self._forward(images)
    if self._place.type == "cuda":
      self._torch.cuda.synchronize()
    return levels

  def _forward(self, images: Any) -> dict[int, Any]:
    nn = self._torch.nn.functional

    def convolve(feats: Any, weights: tuple[Any, Any], stride: int) -> Any:
      kernel, bias = weights
      return nn.conv2d(feats, kernel, bias, stride, kernel.shape[-1] // 2)

    feats = (images.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std
    levels = {1: nn.relu(convolve(feats, self._stem, 2))}
    feats = nn.max_pool2d(levels[1], 3, 2, 1)
    for level, plans in self._plans.items():
      for index, plan in enumerate(plans):
        block, inner = self._blocks[f"layer{level - 1}_{index}"], feats
        for at, (_, _, stride) in enumerate(plan, start=1):
          inner = nn.relu(inner) if at > 1 else inner
          inner = convolve(inner, block[f"conv{at}"], stride)
        if "shortcut" in block:
          feats = convolve(feats, block["shortcut"], max(shape[2] for shape in plan))
        feats = nn.relu(feats + inner)
      levels[level] = feats
    return levels


def check(
  ours: Mapping[int, Float[np.ndarray, "b _ _ _"]], theirs: Mapping[int, Any]
) -> float:
  """The largest difference, as a share of the largest value of its level.

  Raises:
    ValueError: it is above CLOSE.
  """
  gaps = []
  for level, feats in ours.items():
    other = theirs[level].cpu().numpy().transpose(0, 2, 3, 1)
    gaps.append(float(np.abs(feats - other).max() / np.abs(feats).max()))
  if max(gaps) > CLOSE:
    raise ValueError(
      f"PyTorch's encoder differs from ours by {max(gaps):.2g} of the largest value; "
      f"at most {CLOSE} is allowed, so its time would say nothing."
    )
  return max(gaps)
