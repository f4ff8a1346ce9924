"""The graph's float32 numbers beside those of scoring.score, in float64 NumPy."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nps_jax import gaussian
from nps_jax import scoring
from nps_jax.exporting import graph
from nps_jax.exporting import scores
from nps_jax.models import memory

IMAGES, GRID, CODES = 5, (12, 20), 7  # twice the counted level's grid


def options(**changes):
  given = {"smoothing": 60.0, "pooled": ("features", "codes"), "image": "max"}
  given["maps"] = ("memory", "codes", "layout", "reconstruction")
  return types.SimpleNamespace(**(given | changes))


def evidence(rng):
  """Raw scores as a device gives them: float32, cells float16."""
  shape = (IMAGES, GRID[0] // 2, GRID[1] // 2)
  cells = rng.dirichlet(np.full(CODES, 0.3), shape).astype(np.float16)
  maps = {
    name: np.float32(rng.gamma(4, 0.1, (IMAGES, *GRID)))
    for name in ("memory", "reconstruction")
  }
  pooled = {
    "features": np.float32(3 + rng.normal(size=(IMAGES, 30))),
    "codes": np.float32(cells).mean(axis=(1, 2)),
    "residual": np.float32(rng.normal(size=(IMAGES, 4))),  # which nothing asks for
  }
  return scoring.RawScores(maps, pooled, cells)


def calibrated(rng, aimed):
  """A calibration with everything in it; one of the statistics' columns is constant."""
  rows = {
    "features": 3 + rng.normal(size=(20, 30)),
    "codes": rng.dirichlet([1] * 7, 20),
  }
  rows["features"][:, 4] = 3.25
  moves = {name: rng.normal(size=(9, len(values[0]))) for name, values in rows.items()}
  sources = ("memory", "layout", "reconstruction")
  return scoring.Calibration(
    priors=scoring.Priors(),
    mean={name: rng.gamma(4, 0.1, GRID) for name in sources},
    spread={name: rng.uniform(0.02, 0.05, GRID) for name in sources},
    quantiles={name: np.array([0.5, 3.25]) for name in (*sources, "codes")},
    gaussians={
      name: gaussian.fit(values, moves[name] / 9 if aimed else None)
      for name, values in rows.items()
    },
    evidence={
      name: np.array([mean, 0.7])
      for name, mean in {"fused": 0.3, "features": 6.0, "codes": 40.0}.items()
    },
    usual=rng.dirichlet([1] * CODES, (GRID[0] // 2, GRID[1] // 2)).astype(np.float16),
    map_weights={"memory": 2.5, "reconstruction": 0.0, "layout": 0.7, "codes": 1.2},
    unit={"score": 9.5, "map": 0.8},
    normal={},
  )


@pytest.mark.parametrize("aimed", [True, False])
@pytest.mark.parametrize(
  "changes",
  [{}, {"image": "top1"}, {"smoothing": 0.0}, {"pooled": ()}, {"pooled": ("codes",)}],
)
def test_the_graph_s_numbers_are_those_of_the_score(aimed, changes):
  rng = np.random.default_rng(0)
  config, calibration = options(**changes), calibrated(rng, aimed)
  raw = evidence(rng)
  want = scoring.score(config, calibration, raw)
  have = jax.jit(lambda raw: scores.answer(config, calibration, raw))(raw)
  terms = scores.terms(config, calibration)
  assert terms == tuple(want.evidence)
  assert have.map.dtype == have.evidence.dtype == jnp.float32
  assert want.maps.std() > 0.1  # there is something to be found
  np.testing.assert_allclose(have.map, want.maps, rtol=1e-5, atol=1e-5)
  columns = np.stack(list(want.evidence.values()), axis=1) / 9.5
  np.testing.assert_allclose(have.evidence, columns, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(have.evidence.sum(axis=1), want.scores, rtol=1e-5)


def test_a_source_without_weight_is_not_computed():
  rng = np.random.default_rng(1)
  calibration = calibrated(rng, True)
  assert scores.sources(options(), calibration) == ("memory", "layout", "codes")
  raw = evidence(rng)
  raw.maps["reconstruction"][:] = np.nan
  raw = jax.tree.map(jnp.asarray, raw)
  assert np.isfinite(scores.answer(options(), calibration, raw).map).all()


def test_the_search_finds_what_the_memory_s_own_finds():
  """Never nearer than the nearest, and as `memory.distance` says."""
  rng = np.random.default_rng(2)
  patches = np.float32(rng.normal(size=(150, 40)) * np.geomspace(2, 0.1, 40))
  rows = np.float32(rng.normal(size=(2, 9, 10, 40)) * np.geomspace(2, 0.1, 40))
  kept = memory.remember(patches)
  found = np.asarray(graph.nearest(jnp.asarray(rows), kept))
  exact = np.linalg.norm(np.float64(rows)[:, :, :, None] - patches, axis=-1).min(-1)
  assert (found >= exact - 1e-5).all()
  assert (found < exact + 1e-5).mean() > 0.9
  own = memory.distance(jnp.asarray(rows), kept)
  np.testing.assert_allclose(found, own, atol=1e-5)


def test_places_last_bits_are_cut_off_as_the_memory_does():
  """Across powers of two, exactly."""
  rng = np.random.default_rng(3)
  values = np.float32(np.exp(rng.uniform(-20, 60, 4000)))
  values[:400] = np.exp2(np.arange(400) % 50 - 20)
  values[:200] = np.nextafter(values[:200], np.float32(0))
  values[-1] = 0
  for bits in (3, 4, 7, 11, 14):
    want = (values.view(np.int32) & ~((1 << bits) - 1)).view(np.float32)
    have = jax.jit(lambda rows, bits=bits: graph._truncated(rows, bits))(values)
    np.testing.assert_array_equal(have, want)
