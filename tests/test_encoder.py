"""The encoder against PyTorch's stored answers and a slow NumPy block."""

import functools
import json
import pathlib

from golden import encoder_rule
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nps_jax import geometry
from nps_jax.models import encoder
from nps_jax.models import resnet_weights
from nps_jax.models import weights

GOLDEN = json.loads(
  (pathlib.Path(__file__).parent / "golden" / "encoder.json").read_text()
)


def ruled(name: str, deepest: int) -> dict[str, np.ndarray]:
  """A file's tensors, as golden/make_encoder.py draws them."""
  shapes = weights.expected_shapes(name, deepest)
  return {key: encoder_rule.tensor(key, shape) for key, shape in shapes.items()}


@functools.cache
def features(name: str, deepest: int, dtype: str = "float32") -> dict[int, np.ndarray]:
  params = weights.convert(ruled(name, deepest), name, deepest, pathlib.Path("ruled"))
  model = encoder.Encoder(name, deepest, jnp.dtype(dtype))
  images = encoder.normalise(jnp.asarray(encoder_rule.images()))
  found = jax.jit(model.apply)({"params": params}, images)
  return {level: np.asarray(feats) for level, feats in found.items()}


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=() if name == "resnet18" else pytest.mark.slow)
    for name in GOLDEN
  ],
)
def test_levels_agree_with_torch(name):
  found = features(name, 5)
  assert list(found) == [1, 2, 3, 4, 5]
  for (level, feats), want in zip(found.items(), GOLDEN[name], strict=True):
    assert feats.shape == tuple(want["shape"])
    assert feats.dtype == np.float32
    assert feats.shape[-1] == geometry.encoder(name).widths[level]
    assert feats.shape[1] == 64 // geometry.PYRAMID.stride(level)
    values = feats.reshape(-1)[encoder_rule.places(level, feats.size)]
    close = {"rtol": 1e-4, "atol": 1e-5 * want["std"]}
    np.testing.assert_allclose(values, want["values"], **close)
    np.testing.assert_allclose(feats.mean(dtype=np.float64), want["mean"], **close)
    np.testing.assert_allclose(feats.std(dtype=np.float64), want["std"], **close)


def convolve(feats: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
  """Torch's convolution of one image [h w d] by loops, float64."""
  pad = kernel.shape[2] // 2
  padded = np.pad(feats, ((pad, pad), (pad, pad), (0, 0)))
  rows = (feats.shape[0] + 2 * pad - kernel.shape[2]) // stride + 1
  out = np.zeros((rows, rows, kernel.shape[0]))
  for y in range(rows):
    for x in range(rows):
      window = padded[y * stride :, x * stride :][: kernel.shape[2], : kernel.shape[3]]
      out[y, x] = np.einsum("yxi,oiyx->o", window, kernel.astype(np.float64))
  return out


def test_a_block_agrees_with_slow_numpy():
  """layer2.0 of ResNet-18, with a shortcut and a stride, normalisation kept apart."""
  held, found = ruled("resnet18", 3), features("resnet18", 3)

  def normed(feats: np.ndarray, conv: str, norm: str, stride: int) -> np.ndarray:
    parts = (held[f"{norm}.{part}"].astype(np.float64) for part in resnet_weights.NORM)
    gamma, beta, mean, var = parts
    feats = convolve(feats, held[f"{conv}.weight"], stride)
    return (feats - mean) / np.sqrt(var + 1e-5) * gamma + beta

  def block(feats: np.ndarray, name: str, stride: int) -> np.ndarray:
    inner = np.maximum(normed(feats, f"{name}.conv1", f"{name}.bn1", stride), 0)
    inner = normed(inner, f"{name}.conv2", f"{name}.bn2", 1)
    if stride > 1:
      shortcut = (f"{name}.downsample.0", f"{name}.downsample.1")
      feats = normed(feats, *shortcut, stride)
    return np.maximum(feats + inner, 0)

  feats = found[2][0].astype(np.float64)
  want = block(block(feats, "layer2.0", 2), "layer2.1", 1)
  np.testing.assert_allclose(found[3][0], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("deepest", [1, 2, 4])
def test_nothing_deeper_is_held(deepest):
  found = features("resnet18", deepest)
  assert list(found) == list(range(1, deepest + 1))
  whole = features("resnet18", 5)
  np.testing.assert_allclose(found[deepest], whole[deepest], rtol=1e-5, atol=1e-4)
  kernels = resnet_weights.kernel_shapes("resnet18", deepest)
  layers = {path[0].split("_")[0] for path in kernels}
  assert layers == {"stem", *(f"layer{layer}" for layer in range(1, deepest))}


def test_bfloat16_computes_roughly_and_answers_in_float32():
  fine, rough = features("resnet18", 4), features("resnet18", 4, "bfloat16")
  for level, feats in rough.items():
    assert feats.dtype == np.float32
    gap = np.abs(feats - fine[level]).mean() / np.abs(fine[level]).mean()
    assert 1e-5 < gap < 0.03


def test_normalise_agrees_with_float64():
  images = encoder_rule.images()
  mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
  found = encoder.normalise(jnp.asarray(images))
  np.testing.assert_allclose(found, (images / 255 - mean) / std, rtol=1e-5, atol=1e-6)


def test_unknown_names_are_refused():
  for ask in (geometry.encoder, lambda name: encoder.plans(name, 3)):
    with pytest.raises(ValueError, match=r"'resnet19'; expected one of resnet18, "):
      ask("resnet19")


@pytest.mark.parametrize("deepest", [0, 6])
def test_levels_outside_the_network_are_refused(deepest):
  with pytest.raises(ValueError, match=rf"level is {deepest}; expected 1 .* to 5"):
    encoder.Encoder("resnet18", deepest).init(
      jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    )


def test_sides_that_are_no_multiple_of_32_are_refused():
  with pytest.raises(ValueError, match=r"64 x 48 pixels.* multiples of 32"):
    encoder.Encoder("resnet18", 1).init(jax.random.key(0), jnp.zeros((1, 64, 48, 3)))
