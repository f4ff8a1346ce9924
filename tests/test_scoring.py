"""Raw maps, statistics and scores against slow float64 loops."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import slow

from nps_jax import config as settings
from nps_jax import gaussian
from nps_jax import losses
from nps_jax import scoring

EXACT = {"rtol": 1e-9, "atol": 1e-9}
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
GRID = (5, 6)


def drawn(seed: int, *shape: int) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def options(changes: dict) -> ml_collections.FrozenConfigDict:
  config = settings.defaults().scoring
  config.update(changes)
  return ml_collections.FrozenConfigDict(config)


@pytest.mark.parametrize("distance", losses.DISTANCES)
def test_raw_map_is_the_mean_of_resized_level_maps(distance):
  """A level finer than the grid, one like it, and two that are coarser."""
  shapes = {1: (2, 9, 14, 3), 2: (2, 5, 6, 2), 3: (2, 3, 3, 4), 4: (2, 2, 1, 5)}
  target = {level: drawn(level, *shapes[level]) for level in shapes}
  rebuilt = {level: drawn(10 + level, *shapes[level]) for level in shapes}
  given = jax.tree.map(jnp.asarray, (target | {5: drawn(5, 2, 1, 1, 2)}, rebuilt))
  maps = scoring.raw_map(*given, distance, GRID)
  want = np.zeros((2, *GRID))
  for level in shapes:
    one, other = slow.unit(target[level]), np.float64(rebuilt[level])
    squared = np.sum((one - other) ** 2, axis=-1)
    gap = squared if distance == "mse" else 1 - np.sum(one * slow.unit(other), axis=-1)
    want += [slow.resize(each, GRID) / len(shapes) for each in gap]
  np.testing.assert_allclose(maps, want, **CLOSE)


def slow_moments(maps: list[np.ndarray]) -> np.ndarray:
  """Each channel's mean and spread over one image's positions, level by level."""
  parts = []
  for each in maps:
    rows = np.vstack(np.float64(each))
    mean = sum(rows) / len(rows)
    parts += [mean, np.sqrt(sum((rows - mean) ** 2) / len(rows))]
  return np.concatenate(parts)


def test_pooled_statistics_agree_with_float64():
  """The residuals are of features at length 1, the moments of those given."""
  shapes = {2: (3, 4, 5, 2), 3: (3, 2, 2, 3), 4: (3, 1, 2, 2)}
  target = {level: drawn(20 + level, *shapes[level]) for level in shapes}
  rebuilt = {level: 3 * drawn(30 + level, *shapes[level]) for level in shapes}
  on_device = jax.tree.map(jnp.asarray, (target, rebuilt))
  residual = scoring.residual(*on_device)
  features = scoring.moments(list(on_device[0].values()))
  for row in range(3):
    gaps = [slow.unit(target[at][row]) - slow.unit(rebuilt[at][row]) for at in shapes]
    levels = [target[at][row] for at in shapes]
    np.testing.assert_allclose(residual[row], slow_moments(gaps), **CLOSE)
    np.testing.assert_allclose(features[row], slow_moments(levels), **CLOSE)


@pytest.mark.parametrize("sigma", [0.0, 2.0, 5.0, 12.0])
def test_smooth_agrees_with_a_direct_convolution(sigma):
  """A spread of 4 is one cell where 64 of them make up a side."""
  maps = drawn(40, 2, 8, 8) + 3
  smoothed = scoring.smooth(maps, 8 * sigma)
  assert smoothed.dtype == np.float64
  np.testing.assert_allclose(smoothed, slow.smooth(maps, sigma / 4), **EXACT)
  assert np.array_equal(smoothed, maps) == (sigma == 0)


def counted(seed: int, images: int, codes: int = 6) -> scoring.RawScores:
  """Belongings on a 4 x 3 grid, and their means, the shares."""
  cells = np.random.default_rng(seed).dirichlet(np.full(codes, 0.3), (images, 4, 3))
  cells = cells.astype(np.float16)
  shares = np.float64(cells).mean(axis=(1, 2)).astype(np.float32)
  return scoring.RawScores(on_grid(8, 6), {"codes": shares}, cells)


def on_grid(rows: int, columns: int) -> dict[str, np.ndarray]:
  """A map, whose grid that of the codes is to be."""
  return {"memory": np.zeros((1, rows, columns), np.float32)}


def blank(**fields) -> scoring.Calibration:
  empty = {field: {} for field in scoring.Calibration._fields}
  plain = {"priors": scoring.Priors(), "unit": {"score": 1.0, "map": 1.0}}
  return scoring.Calibration(**(empty | plain | fields))


@pytest.mark.parametrize("aimed", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 30.0])
def test_counted_places_are_those_that_make_up_the_distance(aimed, smoothing):
  """Before they are cut and smoothed, their mean is the squared distance."""
  normal, judged = counted(1, 30), counted(2, 3)
  moves = np.float64(drawn(3, 5, 6)) / 20 if aimed else None
  shares = normal.pooled["codes"]
  usual = np.float64(normal.cells).mean(axis=0)
  fitted = gaussian.fit(shares, moves)
  calibration = blank(gaussians={"codes": fitted}, usual=usual.astype(np.float16))
  config = options({"smoothing": smoothing})
  places = scoring.counted_places(config, calibration, judged)
  pull = gaussian.pull(fitted, judged.pooled["codes"])
  for image, at in zip(places, range(3), strict=True):
    odd = np.zeros((4, 3))
    for y, x in np.ndindex(4, 3):
      odd[y, x] = pull[at] @ (np.float64(judged.cells[at, y, x]) - usual[y, x])
    far = gaussian.distance(fitted, judged.pooled["codes"])[at]
    np.testing.assert_allclose(odd.mean(), far**2, rtol=1e-2)  # cells are float16
    fine = slow.resize(np.maximum(odd, 0), (8, 6))
    sides = [smoothing * np.sqrt(8 * 6) / 256] * 2
    if smoothing:
      fine = slow.smooth_by_axis(fine, sides)
    np.testing.assert_allclose(image, fine / fine.max(), rtol=1e-2, atol=1e-2)


def test_one_part_too_many_is_shown_and_a_missing_one_where_it_should_be():
  """Code 1 belongs to the cell (1, 1) of every image; its share hardly varies."""
  rng = np.random.default_rng(0)
  cells = np.zeros((40, 4, 4, 3), np.float32)
  cells[..., 0] = 1
  cells[:, 1, 1] = (0, 1, 0)
  mixed = rng.uniform(0, 0.1, (40, 4, 4))
  cells[..., 0] -= mixed * (cells[..., 0] > 0)
  cells[..., 2] += mixed * (cells[..., 0] > 0)
  shares = cells.mean(axis=(1, 2))
  fitted = gaussian.fit(shares, scale=np.full(3, 0.1))
  usual = cells.mean(axis=0).astype(np.float16)
  calibration = blank(gaussians={"codes": fitted}, usual=usual)
  odd = cells[:2].copy()
  odd[0, 3, 2] = (0, 1, 0)  # one more
  odd[1, 1, 1] = (1, 0, 0)  # none
  pooled = {"codes": odd.mean(axis=(1, 2))}
  raw = scoring.RawScores(on_grid(8, 8), pooled, odd.astype(np.float16))
  places = scoring.counted_places(options({"smoothing": 0.0}), calibration, raw)
  for image, (y, x) in zip(places, ((3, 2), (1, 1)), strict=True):
    cell = image.reshape(4, 2, 4, 2).mean(axis=(1, 3))
    assert np.unravel_index(cell.argmax(), (4, 4)) == (y, x)
    assert np.sort(cell.ravel())[-2] < 0.5 * cell.max()


def test_rare_places_are_by_the_logarithm_of_how_usual_a_code_is_there():
  normal, judged = counted(4, 9), counted(5, 2)
  usual = np.float64(normal.cells).mean(axis=0).astype(np.float16)
  places = scoring.rare_places(blank(usual=usual), judged)
  for image, cells in zip(places, np.float64(judged.cells), strict=True):
    odd = np.zeros((4, 3))
    for y, x in np.ndindex(4, 3):
      odd[y, x] = -np.log(cells[y, x] @ np.float64(usual[y, x]) + 1e-4)
    np.testing.assert_allclose(image, slow.resize(odd, (8, 6)), rtol=1e-4)


def test_the_fused_map_is_the_weighted_mean_and_scores_are_sums_by_hand():
  """Two maps, one of which weighs three times as much; a statistic counts whole."""
  maps = {
    "memory": np.float64([[[7.0, 1.0]]]),
    "structural": np.float64([[[0.0, 2.0]]]),
  }
  normal = gaussian.Gaussian(
    *(np.zeros(1), np.ones(1), np.ones((1, 1)), np.ones(1), 1.0, np.zeros((0, 1)))
  )
  calibration = blank(
    mean={"memory": np.float64([[1, 1]]), "structural": np.float64([[0, 0]])},
    spread={"memory": np.float64([[2, 2]]), "structural": np.float64([[1, 1]])},
    quantiles={"memory": np.float64([1, 3]), "structural": np.float64([0, 0.5])},
    gaussians={"features": normal},
    evidence={"fused": np.float64([0.02, 0.01]), "features": np.float64([1, 2])},
    map_weights={"memory": 1.5, "structural": 0.5},
    unit={"score": 4.0, "map": 0.5},
  )
  raw = scoring.RawScores(maps, {"features": np.float64([[5.0]])})
  config = options({"smoothing": 0.0})
  judged = scoring.score(config, calibration, raw)
  # Memory: (3 - 1) / 2 and (0 - 1) / 2 tenths; structural: 0 and 2 / 0.5 tenths.
  memory, structural = np.float64([0.1, -0.05]), np.float64([0.0, 0.4])
  fused = 0.75 * memory + 0.25 * structural
  np.testing.assert_allclose(judged.maps[0, 0], fused / 0.5)
  np.testing.assert_allclose(judged.sources["memory"][0, 0], 1.5 * memory)
  # Its peak is 0.075, 5.5 spreads above the mean peak; the statistic's 5 is 4 away.
  soft = np.log1p(np.exp([5.5, 4 / 2]))
  np.testing.assert_allclose(judged.scores, soft.sum() / 4)
  np.testing.assert_allclose([*judged.evidence.values()], soft[:, None])
  alone = scoring.score(options({"smoothing": 0.0, "pooled": ()}), calibration, raw)
  np.testing.assert_allclose(alone.scores, soft[0] / 4)


def test_what_is_calmer_than_usual_takes_nothing_away():
  calibration = blank(evidence={"memory": np.float64([500, 1])})
  calm = scoring.standard(calibration, "memory", np.float64([0, 400, 500, 600]))
  np.testing.assert_allclose(calm, [0, 0, np.log(2), 100], atol=1e-12)


@pytest.mark.parametrize(("cells", "top"), [(50, 1), (199, 1), (200, 2), (1234, 12)])
def test_peaks_are_the_maximum_or_the_mean_of_the_top_percent(cells, top):
  ranked = np.arange(1.0, cells + 1)
  mixed = np.random.default_rng(0).permutation(ranked).reshape(1, 1, cells)
  maps = np.concatenate([mixed, -mixed])
  peaks = scoring.peak(options({"image": "max"}), maps)
  np.testing.assert_array_equal(peaks, [cells, -1])
  peaks = scoring.peak(options({"image": "top1"}), maps)
  np.testing.assert_allclose(peaks, [cells - (top - 1) / 2, -(top + 1) / 2])
