"""What the encoder learns to say, against slow float64 sums; its kernels' size."""

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from nps_jax.data import forms
from nps_jax.data import scenes
from nps_jax.data import surfaces
from nps_jax.models import encoder
from nps_jax.models import pretext

SHAPES, TEXTURES = len(forms.SHAPES), len(surfaces.TEXTURES)


def truth(seed, count, side):
  rng = np.random.default_rng(seed)
  grid = (count, side, side)
  return scenes.Scene(
    rng.integers(0, 256, (*grid, 3), np.uint8),
    rng.integers(0, SHAPES, grid, np.int32),
    rng.integers(0, TEXTURES, grid, np.int32),
    rng.random((*grid, 3), np.float32),
  )


def share(labels, kinds, cell):
  """Of each kind in each cell, by loops."""
  count, side = labels.shape[0], labels.shape[1] // cell
  found = np.zeros((count, side, side, kinds))
  for at in np.ndindex(labels.shape):
    found[at[0], at[1] // cell, at[2] // cell, labels[at]] += 1 / cell**2
  return found


def test_the_terms_are_cross_entropies_and_a_difference_of_colours():
  about, rng = truth(0, 2, 16), np.random.default_rng(1)
  said = {
    level: tuple(
      rng.normal(size=(2, 16 // 2**level, 16 // 2**level, width)).astype(np.float32)
      for width in (SHAPES, TEXTURES, 3)
    )
    for level in (2, 3)
  }
  found = pretext.terms(
    jax.tree.map(jnp.asarray, said), jax.tree.map(jnp.asarray, about)
  )
  want = {}
  for level, (shapes, textures, colour) in said.items():
    cell = 2**level
    for name, given, labels in (
      *(("shape", shapes, about.shape), ("texture", textures, about.texture)),
    ):
      logits = np.float64(given)
      known = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
      shares = share(labels, logits.shape[-1], cell)
      want[f"{name}/f{level}"] = -(shares * known).sum(-1).mean()
    side = 16 // cell
    cells = np.float64(about.colour).reshape(2, side, cell, side, cell, 3)
    want[f"colour/f{level}"] = np.abs(cells.mean((2, 4)) - colour).mean()
  assert set(found) == set(want)
  for name, value in want.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-5)


def test_heads_say_shapes_textures_and_a_colour_at_each_cell_alone():
  feats = {3: jax.random.normal(jax.random.key(0), (1, 2, 3, 5))}
  said, held = pretext.Heads().init_with_output(jax.random.key(1), feats)
  dense = held["params"]["level3"]
  whole = np.float64(feats[3]) @ np.float64(dense["kernel"]) + np.float64(dense["bias"])
  assert [each.shape[-1] for each in said[3]] == [SHAPES, TEXTURES, 3]
  np.testing.assert_allclose(np.concatenate(said[3], -1), whole, rtol=1e-4, atol=1e-5)


def test_standardised_kernels_have_mean_0_and_keep_the_spread_of_their_input():
  model = encoder.Encoder("resnet18", 3)
  params = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))["params"]
  held = pretext.with_gains(params)
  held["layer1_0"]["conv1"]["kernel"] = 5 * held["layer1_0"]["conv1"]["kernel"] + 2
  held["stem"]["bias"] += 0.5
  found = pretext.standardised(held)
  assert jax.tree.structure(found) == jax.tree.structure(params)
  np.testing.assert_array_equal(found["stem"]["bias"], 0.5)
  for path, leaf in traverse_util.flatten_dict(found, sep="/").items():
    if path.endswith("kernel"):
      kernel, fan = np.float64(leaf), np.prod(leaf.shape[:3])
      spread = (0.2 if "conv2" in path else 1) * np.sqrt(2 / fan)
      np.testing.assert_allclose(kernel.mean((0, 1, 2)), 0, atol=1e-6)
      np.testing.assert_allclose(kernel.std((0, 1, 2)), spread, rtol=2e-3)
