"""The encoder before its training: what its filters see, what its layers pass on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nps_jax.models import encoder
from nps_jax.pretraining import filters


def test_the_stems_filters_are_different_and_of_one_length():
  bank = filters.stem().reshape(-1, 64)
  np.testing.assert_allclose(np.square(bank).sum(0), 2)
  likeness = bank.T @ bank / 2 - np.eye(64)
  assert likeness.max() < 0.99
  assert np.linalg.matrix_rank(bank, tol=1e-3) > 30


def test_edges_bars_and_colours_each_find_their_filter():
  bank = filters.stem()
  y, x = np.mgrid[:7, :7] - 3.0
  for angle in (0, np.pi / 4, np.pi / 2, np.pi):
    edge = np.sign(np.cos(angle) * x + np.sin(angle) * y)
    shown = np.einsum("yxcd,yx->d", bank, edge)
    best = bank[..., shown.argmax()].sum(axis=-1)
    right = np.array([(best * x).sum(), (best * y).sum()])
    np.testing.assert_allclose(
      right / np.linalg.norm(right), (np.cos(angle), np.sin(angle)), atol=0.05
    )
  flat = bank.sum(axis=(0, 1))  # what a surface of each primary colour gives
  red, green, blue = flat
  assert (red > 1).any() and (green > 1).any() and (blue > 1).any()
  edges = np.abs(flat.sum(axis=0)) < 1e-6  # nothing of a grey surface
  assert edges.sum() >= 40


@pytest.mark.parametrize("kind", filters.KINDS)
def test_the_parameters_are_an_encoders(kind):
  images = jnp.zeros((1, 32, 32, 3))
  model = encoder.Encoder(kind, 3)
  want = jax.eval_shape(lambda: model.init(jax.random.key(0), images))["params"]
  found = filters.initial(kind, 3, 0)
  assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), found) == jax.tree.map(
    lambda leaf: (leaf.shape, leaf.dtype), want
  )
  again, other = filters.initial(kind, 3, 0), filters.initial(kind, 3, 1)
  jax.tree.map(np.testing.assert_array_equal, found, again)
  assert np.any(
    found["layer1_0"]["conv1"]["kernel"] != other["layer1_0"]["conv1"]["kernel"]
  )


def test_a_level_passes_the_channels_below_on_blurred():
  rng = np.random.default_rng(0)
  model = encoder.Encoder("resnet18", 3)
  params = filters.initial("resnet18", 3, 0)
  images = jnp.asarray(rng.normal(size=(2, 32, 32, 3)), jnp.float32)
  levels = model.apply({"params": params}, images)
  below = np.pad(np.float64(levels[2]), ((0, 0), (1, 1), (1, 1), (0, 0)))
  want = np.zeros((2, 4, 4, 64))
  for row in range(3):
    for column in range(3):
      weight = (1, 2, 1)[row] * (1, 2, 1)[column] / 16
      want += weight * below[:, row : row + 8 : 2, column : column + 8 : 2]
  np.testing.assert_allclose(levels[3][..., :64], want, rtol=1e-4, atol=1e-5)
  assert np.std(levels[3][..., 64:]) > 0.1


@pytest.mark.parametrize("kind", filters.KINDS)
def test_gains_are_of_what_is_new(kind):
  params, found = filters.initial(kind, 4, 0), filters.gains(kind, 4)
  layers = {name: set(block) for name, block in params.items() if name != "stem"}
  assert set(found) == {(name, part) for name in layers for part in layers[name]}
  for (name, part), each in found.items():
    handed = {"layer1": 0, "layer2": 64, "layer3": 128}[name[:6]]
    handed *= part != "conv1" or name.endswith("_0")
    assert (each[:handed] == 0).all()
    assert (each[handed:] == np.float32(1 if part == "conv1" else 0.7)).all()
