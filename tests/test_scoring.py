"""Maps, scales and scores against slow float64 loops and textbook covariances."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import slow

from nps_jax import config as settings
from nps_jax import losses
from nps_jax import scoring

EXACT = {"rtol": 1e-9, "atol": 1e-9}
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
GRID = (5, 6)
NAMES = ("reconstruction", "discrepancy", "structural")


def drawn(seed: int, *shape: int) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def options(changes: dict) -> ml_collections.FrozenConfigDict:
  config = settings.defaults().scoring
  config.update(changes)
  return ml_collections.FrozenConfigDict(config)


def raw(seed: int, count: int = 4, grid: tuple[int, int] = GRID) -> scoring.RawScores:
  """Three sources of different magnitudes, and eight statistics of two sorts each."""
  parts = np.abs(drawn(seed, 3, count, *grid)) * np.float32([[[[1]]], [[[3]]], [[[9]]]])
  maps = dict(zip(NAMES, parts, strict=True))
  return scoring.RawScores(maps, statistics(seed + 9, count))


def statistics(seed: int, count: int) -> dict[str, np.ndarray]:
  return {"codes": drawn(seed, count, 8), "features": drawn(seed + 1, count, 5)}


def fitted(changes: dict, seed: int = 0) -> scoring.Calibration:
  return scoring.fit(options(changes), raw(seed), statistics(seed + 50, 12))


def unit(feats: np.ndarray) -> np.ndarray:
  feats = np.float64(feats)
  return feats / np.linalg.norm(feats, axis=-1, keepdims=True)


def slow_resize(values: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
  """Bilinear between cell centres; a triangle of the coarser cell's width."""
  parts = []
  for old, new in zip(values.shape, grid, strict=True):
    part = np.zeros((new, old))
    for to in range(new):
      centre, reach = (to + 0.5) * old / new - 0.5, max(1.0, old / new)
      for at in range(old):
        part[to, at] = max(0.0, 1 - abs(at - centre) / reach)
      part[to] /= part[to].sum()
    parts.append(part)
  return parts[0] @ np.float64(values) @ parts[1].T


def slow_smooth(maps: np.ndarray, sigma: float) -> np.ndarray:
  """A Gaussian window cut at four deviations; edges are mirrored with their cell."""
  reach = int(4 * sigma + 0.5)
  steps = np.arange(-reach, reach + 1)
  bell = np.exp(-0.5 * (steps[:, None] ** 2 + steps[None] ** 2) / max(sigma, 1e-9) ** 2)
  found = np.zeros(maps.shape)
  for at, y, x in np.ndindex(*maps.shape):
    padded = np.pad(np.float64(maps[at]), reach, mode="symmetric")
    window = padded[y:, x:][: len(steps), : len(steps)]
    found[at, y, x] = np.sum(window * bell) / bell.sum()
  return found


def slow_quantile(values: np.ndarray, share: float) -> float:
  ranked = sorted(np.float64(values).ravel())
  at = share * (len(ranked) - 1)
  low = min(int(at), len(ranked) - 2)
  return ranked[low] + (at - low) * (ranked[low + 1] - ranked[low])


def slow_statistics(maps: np.ndarray, positionwise: bool):
  """Mean and spread, cell by cell: n parts its own, forty the average cell's."""
  n, grid = len(maps), maps.shape[1:]
  if not positionwise:
    return np.full(grid, maps.mean()), np.full(grid, maps.std())
  cells = [maps[:, y, x] for y, x in np.ndindex(*grid)]
  means = [sum(c) / n for c in cells]
  within = [sum((c - sum(c) / n) ** 2) / (n - 1) for c in cells]
  mean = [(n * m + 40 * np.mean(means)) / (n + 40) for m in means]
  spread = [np.sqrt((n * v + 40 * np.mean(within)) / (n + 40)) for v in within]
  return np.reshape(mean, grid), np.reshape(spread, grid)


def moments(values: np.ndarray) -> np.ndarray:
  return np.array([np.mean(values), np.std(values, ddof=1)])


@pytest.mark.parametrize("distance", losses.DISTANCES)
def test_raw_map_is_the_mean_of_resized_level_maps(distance):
  """A level finer than the grid, one like it, and two that are coarser."""
  shapes = {1: (2, 9, 14, 3), 2: (2, 5, 6, 2), 3: (2, 3, 3, 4), 4: (2, 2, 1, 5)}
  target = {level: drawn(level, *shapes[level]) for level in shapes}
  rebuilt = {level: drawn(10 + level, *shapes[level]) for level in shapes}
  given = jax.tree.map(jnp.asarray, (target | {5: drawn(5, 2, 1, 1, 2)}, rebuilt))
  found = scoring.raw_map(*given, distance, GRID)
  want = np.zeros((2, *GRID))
  for level in shapes:
    one, other = unit(target[level]), np.float64(rebuilt[level])
    squared = np.sum((one - other) ** 2, axis=-1)
    gap = squared if distance == "mse" else 1 - np.sum(one * unit(other), axis=-1)
    want += [slow_resize(each, GRID) / len(shapes) for each in gap]
  np.testing.assert_allclose(found, want, **CLOSE)


def slow_moments(maps: list[np.ndarray]) -> np.ndarray:
  """Each channel's mean and spread over one image's positions, level by level."""
  parts = []
  for each in maps:
    rows = np.vstack(np.float64(each))
    mean = sum(rows) / len(rows)
    parts += [mean, np.sqrt(sum((rows - mean) ** 2) / len(rows))]
  return np.concatenate(parts)


def test_pooled_statistics_agree_with_float64():
  """The residuals of every level; the features of the coarse ones, as they are."""
  shapes = {2: (3, 4, 5, 2), 3: (3, 2, 2, 3), 4: (3, 1, 2, 2)}
  target = {level: drawn(20 + level, *shapes[level]) for level in shapes}
  rebuilt = {level: 3 * drawn(30 + level, *shapes[level]) for level in shapes}
  found = scoring.pooled_statistics(*jax.tree.map(jnp.asarray, (target, rebuilt)))
  assert set(found) == {"residual", "features"}
  for row in range(3):
    residual = [unit(target[at][row]) - unit(rebuilt[at][row]) for at in shapes]
    coarse = [target[at][row] for at in (3, 4)]
    np.testing.assert_allclose(found["residual"][row], slow_moments(residual), **CLOSE)
    np.testing.assert_allclose(found["features"][row], slow_moments(coarse), **CLOSE)
  fine = jax.tree.map(jnp.asarray, ({2: target[2]}, {2: rebuilt[2]}))
  assert set(scoring.pooled_statistics(*fine)) == {"residual"}


@pytest.mark.parametrize("sigma", [0.0, 2.0, 5.0, 12.0])
def test_smooth_agrees_with_a_direct_convolution(sigma):
  """A spread of 4 is one cell where 64 of them make up a side."""
  maps = drawn(40, 2, 8, 8) + 3
  found = scoring.smooth(maps, 8 * sigma)
  assert found.dtype == np.float64
  np.testing.assert_allclose(found, slow_smooth(maps, sigma / 4), **EXACT)
  assert np.array_equal(found, maps) == (sigma == 0)


def test_position_statistics_by_hand():
  maps = np.array([[[0.0, 4.0]], [[2.0, 10.0]]])
  mean, spread = scoring.position_statistics(maps, True)
  # Own means 1 and 7 and variances 2 and 18 weigh 2 of 42, the averages 4 and 10 forty.
  np.testing.assert_allclose(mean, [[162 / 42, 174 / 42]], rtol=1e-12)
  np.testing.assert_allclose(spread, np.sqrt([[404 / 42, 436 / 42]]), rtol=1e-11)
  mean, spread = scoring.position_statistics(maps, False)
  np.testing.assert_allclose(mean, [[4, 4]], rtol=1e-12)
  np.testing.assert_allclose(spread, np.sqrt([[14, 14]]), rtol=1e-11)


@pytest.mark.parametrize("image", ["max", "top1", "sources"])
@pytest.mark.parametrize(("positionwise", "smoothing"), [(True, 20.0), (False, 0.0)])
def test_the_whole_calibration_agrees_with_loops(positionwise, smoothing, image):
  """Fit on one set, then maps and scores of another, each from the definition."""
  changes = {"positionwise": positionwise, "smoothing": smoothing, "image": image}
  changes |= {"low": 0.8, "high": 0.97, "global_weight": 0.3}
  config, grid = options(changes), (16, 16)
  normal, sets = statistics(60, 12), (raw(0, 4, grid), raw(100, 3, grid))
  found = scoring.fit(config, sets[0], normal)

  fused = [np.zeros((len(each.pooled["codes"]), *grid)) for each in sets]
  top = 2 if image == "top1" else 1
  evidence = {}
  # Half of the fused map is the structural source's, a quarter each other's.
  for source, share in zip(NAMES, (4, 4, 2), strict=True):
    maps = [slow_smooth(each.maps[source], smoothing / 16) for each in sets]
    mean, spread = slow_statistics(maps[0], positionwise)
    scaled = [(each - mean) / spread for each in maps]
    low, high = (slow_quantile(scaled[0], each) for each in (0.8, 0.97))
    np.testing.assert_allclose(found.mean[source], mean, **EXACT)
    np.testing.assert_allclose(found.spread[source], spread, **EXACT)
    np.testing.assert_allclose(found.quantiles[source], [low, high], **EXACT)
    parts = [0.1 * (each - low) / (high - low) for each in scaled]
    fused = [total + part / share for total, part in zip(fused, parts, strict=True)]
    if image == "sources" and source != "reconstruction":
      evidence[source] = [[np.max(each) for each in part] for part in parts]
  if image != "sources":
    evidence["fused"] = [
      [np.mean(sorted(each.ravel())[-top:]) for each in one] for one in fused
    ]
  for given, maps in zip(sets, fused, strict=True):
    np.testing.assert_allclose(scoring.fused_map(config, found, given), maps, **EXACT)
  for name, rows in normal.items():
    own = sets[0].pooled[name]  # four rows, each in a fold of its own
    left = [np.delete(own, at, axis=0) for at in range(4)]
    evidence[name] = [
      [
        slow.mahalanobis(np.concatenate([rows, rest]), own[[at]])[0][0]
        for at, rest in enumerate(left)
      ],
      slow.mahalanobis(np.concatenate([rows, own]), sets[1].pooled[name])[0],
    ]
  assert set(found.evidence) == set(evidence)

  sides = {"local": [0.0, 0.0], "global": [0.0, 0.0]}
  for source, (own, judged) in evidence.items():
    middle, reach = moments(own)
    np.testing.assert_allclose(found.evidence[source], [middle, reach], **EXACT)
    side = sides["global" if source in normal else "local"]
    for at, values in enumerate((own, judged)):
      grown = np.exp((np.float64(values) - middle) / reach)
      side[at] = side[at] + (grown if source in normal else np.log(1 + grown))
  want, sides["global"] = {}, [np.log(each) for each in sides["global"]]
  for side, (own, judged) in sides.items():
    middle, reach = moments(own)
    np.testing.assert_allclose(found.sides[side], [middle, reach], **EXACT)
    want[side] = np.log(1 + np.exp((judged - middle) / reach))
  for weight in (0.3, 0.0):
    given = options(changes | {"global_weight": weight})
    got = scoring.image_score(given, found, sets[1])
    total = want["local"] + weight * want["global"]
    np.testing.assert_allclose(got, total, rtol=1e-8, atol=1e-8)


def test_fused_map_by_hand():
  """Sources at 0.1, 0.3 and -0.2: the logical two count as one module."""

  def by_source(*values) -> dict[str, np.ndarray]:
    return dict(zip(NAMES, map(np.float64, values), strict=True))

  scales = fitted({})._replace(
    mean=by_source([[1]], [[0]], [[2]]),
    spread=by_source([[2]], [[1]], [[1]]),
    quantiles=by_source([1, 3], [0, 1], [0, 0.5]),
  )
  maps = by_source([[[7]]], [[[3]]], [[[1]]])
  for sources, want in (
    (("reconstruction",), 0.1),
    (("reconstruction", "discrepancy"), 0.2),
    (("structural",), -0.2),
    (("structural", "discrepancy", "reconstruction"), 0.0),
  ):
    given = scoring.RawScores({name: maps[name] for name in sources}, {})
    found = scoring.fused_map(options({}), scales, given)
    np.testing.assert_allclose(found, [[[want]]], atol=1e-12)


@pytest.mark.parametrize(
  ("names", "modules", "shown"),
  [
    (
      (*NAMES, "memory", "memory_unit"),
      (NAMES[:2], NAMES[2:], ("memory", "memory_unit")),
      ("discrepancy", "structural", "memory", "memory_unit"),
    ),
    (NAMES[:1], (NAMES[:1],), NAMES[:1]),
  ],
)
def test_memories_are_a_third_module_and_each_map_a_source(names, modules, shown):
  parts = np.abs(drawn(90, len(names), 6, *GRID))
  given = scoring.RawScores(dict(zip(names, parts, strict=True)), statistics(91, 6))
  for image in ("sources", "max"):
    config = options({"image": image})
    scales = scoring.fit(config, given, statistics(92, 12))
    maps = scoring.scaled_maps(config, scales, given)
    means = [sum(maps[name] for name in each) / len(each) for each in modules]
    want = sum(means) / len(modules)
    np.testing.assert_allclose(scoring.fused_map(config, scales, given), want)
    found = scoring.gather_evidence(config, scales, given)
    local = {name: each for name, each in found.items() if name not in given.pooled}
    peaks = {name: maps[name] for name in shown} if image == "sources" else {}
    peaks = peaks or {"fused": want}
    assert set(local) == set(peaks)
    for name, each in peaks.items():
      np.testing.assert_allclose(local[name], each.max(axis=(1, 2)))


@pytest.mark.parametrize(
  ("changes", "used"),
  [
    ({}, {"features", "codes"}),
    ({"pooled": ("codes", "residual")}, {"codes"}),
    ({"pooled": ()}, set()),
    ({"global_weight": 0.0}, set()),
  ],
)
def test_only_the_statistics_that_are_named_count(changes, used):
  """Those that are named and not there, of a model without such codes, are left out."""
  config, data = options(changes), raw(3)
  found = scoring.fit(config, data, statistics(50, 12))
  assert set(found.gaussians) == used
  assert set(found.evidence) == used | {"discrepancy", "structural"}
  before = scoring.image_score(config, found, data)
  odd = {name: rows + 100 for name, rows in data.pooled.items()}
  after = scoring.image_score(config, found, data._replace(pooled=odd))
  assert np.all((after > before) == bool(used))


@pytest.mark.parametrize(("cells", "top"), [(50, 1), (199, 1), (200, 2), (1234, 12)])
def test_peaks_are_the_maximum_or_the_mean_of_the_top_percent(cells, top):
  ranked = np.arange(1.0, cells + 1)
  mixed = np.random.default_rng(0).permutation(ranked).reshape(1, 1, cells)
  maps = np.concatenate([mixed, -mixed])
  found = scoring.peak(options({"image": "max"}), maps)
  np.testing.assert_array_equal(found, [cells, -1])
  found = scoring.peak(options({"image": "top1"}), maps)
  np.testing.assert_allclose(found, [cells - (top - 1) / 2, -(top + 1) / 2])


def bits(found: scoring.Calibration) -> set[tuple]:
  """Every array's place, type, shape and content."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(found)
  named = [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves]
  return {(name, leaf.dtype, leaf.shape, leaf.tobytes()) for name, leaf in named}


def changed(one: scoring.Calibration, other: scoring.Calibration) -> set[str]:
  """The fields, with their source, that differ in any bit."""
  return {name.removeprefix(".") for name, *_ in bits(one) ^ bits(other)}


def test_each_input_reaches_only_its_own_scales():
  config, data, normal = options({}), raw(0), statistics(50, 12)
  before = scoring.fit(config, data, normal)
  assert changed(before, scoring.fit(config, data, normal)) == set()

  maps = {source: values.copy() for source, values in data.maps.items()}
  maps["discrepancy"][2] *= 3
  after = scoring.fit(config, data._replace(maps=maps), normal)
  parts = ("mean", "spread", "quantiles", "evidence")
  want = {f"{part}['discrepancy']" for part in parts}
  want |= {"sides['local']"}
  assert changed(before, after) == want

  pooled = data.pooled | {"codes": data.pooled["codes"] + np.eye(4, 8)[:, ::-1]}
  pooled = jax.tree.map(np.float32, pooled)
  after = scoring.fit(config, data._replace(pooled=pooled), normal)
  parts = ("centre", "scale", "basis")  # shrunk in full, the precision is 1
  want = {f"gaussians['codes'].{part}" for part in parts}
  want |= {"evidence['codes']", "sides['global']"}
  assert changed(before, after) == want

  other = normal | {"features": drawn(77, 12, 5)}
  after = scoring.fit(config, data, other)
  want = {f"gaussians['features'].{part}" for part in parts}
  want |= {"evidence['features']", "sides['global']"}
  assert changed(before, after) == want


def test_a_calm_side_takes_nothing_away():
  """Local evidence far below the usual, global far above: the score is the global's."""
  scales = fitted({"image": "max"})
  scales = scales._replace(
    evidence=dict.fromkeys(scales.evidence, np.array([0.0, 1.0])),
    sides={"local": np.array([500.0, 1.0]), "global": np.array([0.0, 2.0])},
  )
  given = raw(1)
  config = options({"image": "max", "global_weight": 2.0})
  found = scoring.image_score(config, scales, given)
  odd = [
    scoring.gaussian.distance(scales.gaussians[name], rows)
    for name, rows in given.pooled.items()
  ]
  want = 2 * np.log1p(np.exp(np.log(np.exp(odd[0]) + np.exp(odd[1])) / 2))
  np.testing.assert_allclose(found, want, rtol=1e-9)


def test_judged_images_reach_neither_the_scales_nor_each_other():
  config, data, normal = options({}), raw(0), statistics(50, 12)
  scales, test = scoring.fit(config, data, normal), raw(200, 5)
  kept = jax.tree.map(np.copy, (scales, data, normal, test))
  maps = scoring.fused_map(config, scales, test)
  scores = scoring.image_score(config, scales, test)

  other = jax.tree.map(np.copy, test)
  for values in other.maps.values():
    values[3] += 50
  rest = np.array([0, 1, 2, 4])
  after = scoring.fused_map(config, scales, other)
  np.testing.assert_array_equal(after[rest], maps[rest])
  assert np.all(after[3] > maps[3] + 1)
  after = scoring.image_score(config, scales, other)
  np.testing.assert_array_equal(after[rest], scores[rest])
  assert after[3] > scores[3] + 1
  jax.tree.map(np.testing.assert_array_equal, (scales, data, normal, test), kept)


def test_fewer_than_two_validation_images_are_refused():
  for count in (0, 1):
    with pytest.raises(
      ValueError,
      match=rf"at least 2 validation images and found {count}; move some training "
      r"images to validation/good, or raise config\.data\.validation_fraction\.",
    ):
      scoring.fit(options({}), raw(0, count), statistics(50, 12))


def test_saved_scales_come_back_bit_for_bit(tmp_path):
  path = tmp_path / "deep" / "calibration.npz"
  normal = statistics(52, 12)
  normal["codes"][:, 3] = 0.5
  scales = {"screw_bag": fitted({"positionwise": False}, 7), "a b:c.d": fitted({}, 8)}
  scoring.save(path, {"old": scales["screw_bag"]})
  assert set(scoring.load(path, "")) == {"old"}
  scales["pushpins"] = scoring.fit(options({}), raw(5), normal)
  scoring.save(path, scales)
  found = scoring.load(path, "")
  assert set(found) == set(scales)
  for category, each in scales.items():
    assert type(found[category].gaussians["codes"].rest) is float
    assert bits(found[category]) == bits(each)


def test_scales_without_statistics_come_back_too(tmp_path):
  path, scales = tmp_path / "calibration.npz", {"pins": fitted({"global_weight": 0.0})}
  assert scales["pins"].gaussians == scales["pins"].memory == {}
  scoring.save(path, scales)
  assert bits(scoring.load(path, "")["pins"]) == bits(scales["pins"])


@pytest.mark.parametrize("kept", [0, 20, 300])
def test_damaged_scales_are_refused_by_name(tmp_path, kept):
  path = tmp_path / "calibration.npz"
  scoring.save(path, {"pins": fitted({})})
  path.write_bytes(path.read_bytes()[:kept])
  with pytest.raises(ValueError, match=r"calibration\.npz is damaged: .* Try again\."):
    scoring.load(path, "Try again.")
