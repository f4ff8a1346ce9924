"""What photographs agree on, against slow float64 sums and hand values."""

import jax
import jax.numpy as jnp
import numpy as np

from nps_jax.models import agreement


def slow_decorrelation(feats):
  """VICReg's two terms by loops over features."""
  feats = np.float64(feats)
  width = feats.shape[1]
  centred = feats - feats.mean(0)
  short, total = 0.0, 0.0
  for one in range(width):
    spread = np.sqrt(np.square(centred[:, one]).mean() + 1e-4)
    short += max(0.0, 1 - spread) / width
    for other in range(width):
      if one != other:
        total += np.mean(centred[:, one] * centred[:, other]) ** 2 / width
  return short, total


def slow_retrieval(whole, layouts, variants):
  rows = np.float64(whole).reshape(2, layouts, variants, -1)
  losses = []
  for layout in range(layouts):
    centre = np.mean([rows[0, layout], rows[1, layout]], axis=(0, 1))
    one, other = rows[0, layout] - centre, rows[1, layout] - centre
    for at in range(variants):
      for asked, answers in ((one, other), (other, one)):
        cosines = [
          asked[at] @ each / np.linalg.norm(asked[at]) / np.linalg.norm(each)
          for each in answers
        ]
        logits = np.array(cosines) / 0.1
        losses.append(np.log(np.exp(logits).sum()) - logits[at])
  return np.mean(losses)


def test_decorrelation_is_vicregs():
  rng = np.random.default_rng(0)
  feats = rng.normal(size=(40, 5)) * [0.1, 0.5, 1, 2, 0] @ rng.normal(size=(5, 5))
  found = agreement.decorrelation(jnp.float32(feats))
  np.testing.assert_allclose(found, slow_decorrelation(feats), rtol=1e-4)
  apart = np.sqrt(3) * jnp.float32([(1, 1), (1, -1), (-1, 1), (-1, -1)])
  np.testing.assert_allclose(agreement.decorrelation(apart), 0, atol=1e-6)
  np.testing.assert_allclose(agreement.decorrelation(jnp.ones((4, 2))), (0.99, 0))


def test_retrieval_is_a_cross_entropy_among_a_layouts_variants():
  whole = np.random.default_rng(1).normal(size=(2 * 3 * 4, 6)).astype(np.float32)
  found = agreement.retrieval(jnp.asarray(whole), 4)
  np.testing.assert_allclose(found, slow_retrieval(whole, 3, 4), rtol=1e-4)
  shown = np.tile(whole[:12], (2, 1))  # both photographs alike
  layout = np.repeat(np.random.default_rng(2).normal(size=(3, 6)), 4, 0)
  common = np.tile(100 * layout, (2, 1))  # which counts for nothing
  found = agreement.retrieval(jnp.float32(shown + common), 4)
  np.testing.assert_allclose(found, slow_retrieval(shown, 3, 4), rtol=1e-2)
  assert found < 0.2
  none = agreement.retrieval(jnp.ones((24, 6)), 4)
  np.testing.assert_allclose(none, np.log(4), rtol=1e-5)


def test_maps_are_linear_in_the_cells_and_in_the_channels_moments():
  feats = {2: jax.random.normal(jax.random.key(0), (4, 32, 32, 3))}
  views, held = agreement.Maps(5, 6).init_with_output(jax.random.key(1), feats)
  cells, whole = views[2]
  kernels = {name: np.float64(each["kernel"]) for name, each in held["params"].items()}
  exact = np.float64(feats[2])
  want = exact[:, ::2, ::2] @ kernels["cell2"]  # 16 cells along a side
  np.testing.assert_allclose(cells, want, rtol=1e-4, atol=1e-5)
  pooled = np.concatenate([exact.mean((1, 2)), exact.std((1, 2))], axis=1)
  np.testing.assert_allclose(whole, pooled @ kernels["whole2"], rtol=1e-4, atol=1e-5)


def test_the_terms_by_name():
  rng = np.random.default_rng(3)
  cells = rng.normal(size=(8, 2, 2, 5)).astype(np.float32)
  whole = rng.normal(size=(8, 6)).astype(np.float32)
  found = agreement.terms({3: (jnp.asarray(cells), jnp.asarray(whole))}, 2)
  one, other = np.float64(cells).reshape(2, -1, 5)
  sides = [slow_decorrelation(each) for each in (one, other)]
  want = {
    "invariance/f3": np.square(one - other).mean(),
    "variance/f3": (sides[0][0] + sides[1][0]) / 2,
    "covariance/f3": (sides[0][1] + sides[1][1]) / 2,
    "which/f3": slow_retrieval(whole, 2, 2),
  }
  assert set(found) == set(want)
  for name, value in want.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-4)
