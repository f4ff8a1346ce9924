"""A category's whole calibration against loops; what reaches what; its file."""

import jax
import ml_collections
import numpy as np
import pytest
import slow

from nps_jax import calibration as scales
from nps_jax import config as settings
from nps_jax import gaussian
from nps_jax import judging
from nps_jax import map_scales
from nps_jax import scoring
from nps_jax import stored
from nps_jax import verdict
from nps_jax.models import counts
from nps_jax.models import memory

EXACT = {"rtol": 1e-9, "atol": 1e-9}
CELLS = (4, 4)
GRID = (8, 8)


def drawn(seed: int, *shape: int) -> np.ndarray:
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def options(changes: dict) -> ml_collections.FrozenConfigDict:
  config = settings.defaults().scoring
  config.update(changes)
  return ml_collections.FrozenConfigDict(config)


def raw(seed: int, count: int = 4) -> scoring.RawScores:
  """Two sources of different magnitudes; features, and codes in their places."""
  maps = {
    "memory": np.abs(drawn(seed, count, *GRID)),
    "reconstruction": 9 * np.abs(drawn(seed + 1, count, *GRID)),
  }
  cells = np.random.default_rng(seed).dirichlet(np.full(5, 0.5), (count, *CELLS))
  pooled = {
    "features": drawn(seed + 2, count, 7),
    "codes": np.float32(cells.mean(axis=(1, 2))),
  }
  return scoring.RawScores(maps, pooled, np.float16(cells))


def training(seed: int, moved: bool = True) -> scales.Normal:
  given = raw(seed, 24)
  moves = {"features": drawn(seed + 3, 6, 7), "codes": drawn(seed + 4, 6, 5) / 9}
  usual = np.float32(given.cells).mean(axis=0).astype(np.float16)
  return scales.Normal(given.pooled, moves if moved else {}, usual)


def edited(seed: int) -> map_scales.Edited:
  given, masks = raw(seed, 12), np.zeros((12, *GRID), bool)
  masks[:, 2:4, 3:6] = True
  given.maps["reconstruction"][masks] += 40
  return map_scales.Edited(given, masks)


def priors(seed: int = 0) -> scoring.Priors:
  codes = counts.Vocabulary(drawn(seed, 5, 3), np.asarray(np.float32(0.2)))
  patches = drawn(seed + 1, 9, 4).astype(np.float16)
  return scoring.Priors(memory.remember(patches), codes)


def fitted(changes: dict, seed: int = 0) -> scoring.Calibration:
  return scales.fit(
    options(changes), priors(), training(seed + 50), raw(seed), edited(seed + 90)
  )


def test_position_statistics_by_hand():
  maps = np.array([[[0.0, 4.0]], [[2.0, 10.0]]])
  mean, spread = map_scales.position_statistics(maps, True)
  # Own means 1 and 7 and variances 2 and 18 weigh 2 of 42, the averages 4 and 10 forty.
  np.testing.assert_allclose(mean, [[162 / 42, 174 / 42]], rtol=1e-12)
  np.testing.assert_allclose(spread, np.sqrt([[404 / 42, 436 / 42]]), rtol=1e-11)
  mean, spread = map_scales.position_statistics(maps, False)
  np.testing.assert_allclose(mean, [[4, 4]], rtol=1e-12)
  np.testing.assert_allclose(spread, np.sqrt([[14, 14]]), rtol=1e-11)


def unseen_peaks(config, fitted, given, weights, height) -> np.ndarray:
  """Of four images, each under the scales of the other three."""
  peaks = []
  for own in range(4):
    others, fused = [at for at in range(4) if at != own], 0.0
    for source, weight in weights.items():
      if source == "codes":
        values = height[0][:, None, None] * scoring.counted_places(
          config, fitted, given
        )
      else:
        rare = source == "layout"
        values = scoring.rare_places(fitted, given) if rare else given.maps[source]
        values = slow.smooth(values, config.smoothing / 32)
        mean, spread = slow.position_statistics(values[others], config.positionwise)
        values = (values - mean) / spread
      low, high = (slow.quantile(values[others], share) for share in (0.8, 0.97))
      fused = fused + weight * 0.1 * (values[own] - low) / (high - low)
    peaks.append(np.max(fused) / sum(weights.values()))
  return np.array(peaks)


@pytest.mark.parametrize("fusion", ["equal", "learned"])
@pytest.mark.parametrize(("moved", "seen"), [(False, True), (True, False)])
@pytest.mark.parametrize(("positionwise", "smoothing"), [(True, 20.0), (False, 0.0)])
def test_the_whole_calibration_agrees_with_loops(
  positionwise, smoothing, moved, seen, fusion
):
  """Fit on one set, then maps and scores of another, each from the definition."""
  changes = {"positionwise": positionwise, "smoothing": smoothing, "fusion": fusion}
  config = options(changes | {"low": 0.8, "high": 0.97})
  normal, sets = (
    training(60, moved),
    (raw(0), raw(100, 3), edited(200).raw, raw(300, 5)),
  )
  again = np.array([3, 4, 9, 20, 23])  # which of the training images the last ones are
  normal = normal._replace(seen=scales.Seen(sets[3], again) if seen else None)
  judged = edited(200) if fusion == "learned" else None
  fitted = scales.fit(config, priors(), normal, sets[0], judged)

  far, kept, height, before = {}, {}, None, {}
  for name, rows in normal.pooled.items():
    unit = np.sqrt(np.float64(rows).mean(axis=0) + 1e-6) if name == "codes" else None
    moves = normal.moves.get(name)
    before[name] = model = gaussian.fit(
      rows, moves, unit
    )  # itself tested against dense matrices
    own = gaussian.held_out(rows, 10, moves, unit)
    distances = [gaussian.distance(model, one.pooled[name]) for one in sets[:3]]
    z = [values - own.mean() for values in (*distances, own[again])]
    soft = [np.log1p(np.exp(values / own.std(ddof=1))) for values in z]
    height = soft if name == "codes" else height
    # What scores other images is of the validation images too.
    every = np.concatenate([rows, sets[0].pooled[name]])
    unit = np.sqrt(np.float64(every).mean(axis=0) + 1e-6) if name == "codes" else None
    own = gaussian.held_out(every, 10, moves, unit)
    mean, spread = own.mean(), own.std(ddof=1)
    np.testing.assert_allclose(fitted.evidence[name], [mean, spread], **EXACT)
    model = gaussian.fit(every, moves, unit)
    distance = gaussian.distance(model, sets[1].pooled[name])
    far[name] = np.log1p(np.exp((distance - mean) / spread))
    places = [*(again if seen else []), *range(len(rows), len(every))]
    kept[name] = np.log1p(np.exp((own[places] - mean) / spread))

  scaled = {}
  for source in ("memory", "reconstruction", "layout", "codes"):
    if source == "codes":
      first = fitted._replace(gaussians=before)
      bare = [scoring.counted_places(config, first, one) for one in sets]
      parts = [h[:, None, None] * maps for h, maps in zip(height, bare, strict=True)]
      places = scoring.counted_places(config, fitted, sets[1])
      shown = far["codes"][:, None, None] * places
    else:
      given = [
        scoring.rare_places(fitted, one) if source == "layout" else one.maps[source]
        for one in sets
      ]
      if source == "reconstruction":  # the modules know the training images
        given[3] = given[3] * given[0].mean() / given[3].mean()
      smoothed = [slow.smooth(maps, smoothing / 32) for maps in given]
      mean, spread = slow.position_statistics(smoothed[0], positionwise)
      np.testing.assert_allclose(fitted.mean[source], mean, **EXACT)
      np.testing.assert_allclose(fitted.spread[source], spread, **EXACT)
      parts = [(maps - mean) / spread for maps in smoothed]
    low, high = (slow.quantile(parts[0], share) for share in (0.8, 0.97))
    np.testing.assert_allclose(fitted.quantiles[source], [low, high], **EXACT)
    parts.append(shown if source == "codes" else parts[1])
    scaled[source] = [0.1 * (maps - low) / (high - low) for maps in parts]

  weights = dict.fromkeys(scaled, 1.0)
  if judged:
    normal_maps, edited_maps = (
      {source: maps[at] for source, maps in scaled.items()} for at in (0, 2)
    )
    order = list(fitted.map_weights)
    weights = judging.of_maps(
      {source: normal_maps[source] for source in order},
      edited_maps,
      judged.masks,
      spared=("codes",),
    )
    assert weights["reconstruction"] == max(weights.values()) > 2
  for source, weight in weights.items():
    np.testing.assert_allclose(fitted.map_weights[source], weight, rtol=1e-5, atol=1e-6)

  total = sum(weights.values())
  fused, of_seen = (
    sum(weights[source] * maps[at] for source, maps in scaled.items()) / total
    for at in (-1, 3)
  )
  first = fitted._replace(gaussians=before)
  own = unseen_peaks(config, first, sets[0], weights, height)
  if seen:
    own = np.append(of_seen.max(axis=(1, 2)), own)
  z = (fused.max(axis=(1, 2)) - own.mean()) / own.std(ddof=1)
  score = np.log1p(np.exp(z)) + far["features"] + far["codes"]
  # In units of the thresholds of what was held out.
  z = np.log1p(np.exp((own - own.mean()) / own.std(ddof=1)))
  normal = {"score": z + kept["features"] + kept["codes"], "map": own}
  for name, values in normal.items():
    unit = verdict.threshold(values, 0.01).value  # itself tested by hand
    np.testing.assert_allclose(fitted.unit[name], unit, rtol=1e-5)
    np.testing.assert_allclose(fitted.normal[name], np.sort(values / unit), rtol=1e-5)
  judged = scoring.score(config, fitted, sets[1])
  np.testing.assert_allclose(judged.maps, fused / fitted.unit["map"], rtol=1e-5)
  np.testing.assert_allclose(judged.scores, score / fitted.unit["score"], rtol=1e-5)


@pytest.mark.parametrize(
  ("changes", "maps", "statistics"),
  [
    ({}, {"memory", "reconstruction", "layout", "codes"}, {"features", "codes"}),
    ({"maps": ("memory", "structural")}, {"memory"}, {"features", "codes"}),
    ({"maps": ("codes",), "pooled": ()}, {"codes"}, {"codes"}),
    ({"maps": ("layout",), "pooled": ("residual",)}, {"layout"}, set()),
  ],
)
def test_only_what_is_named_and_there_is_calibrated(changes, maps, statistics):
  calibration = fitted(changes)
  assert set(calibration.map_weights) == set(calibration.quantiles) == maps
  assert set(calibration.gaussians) == statistics
  assert set(calibration.mean) == maps - {"codes"}


def bits(found: scoring.Calibration) -> set[tuple]:
  """Every array's place, type, shape and content."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(found)
  named = [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in leaves]
  return {(name, leaf.dtype, leaf.shape, leaf.tobytes()) for name, leaf in named}


def changed(one: scoring.Calibration, other: scoring.Calibration) -> set[str]:
  """The fields, with their source, that differ in any bit; but for units of scores."""
  names = {name.removeprefix(".") for name, *_ in bits(one) ^ bits(other)}
  return {name for name in names if not name.startswith(("unit", "normal"))}


def test_each_input_reaches_only_its_own_scales():
  config = options({"maps": ("memory", "reconstruction"), "pooled": ("features",)})
  data, normal, judged = raw(0), training(50), edited(90)
  before = scales.fit(config, priors(), normal, data, judged)
  again = scales.fit(config, priors(), normal, data, judged)
  assert changed(before, again) == set()

  maps = {source: values.copy() for source, values in data.maps.items()}
  maps["memory"][2] *= 3
  after = scales.fit(config, priors(), normal, data._replace(maps=maps), judged)
  own = {f"{part}['memory']" for part in ("mean", "spread", "quantiles")}
  fused = {f"map_weights['{name}']" for name in maps} | {"evidence['fused']"}
  assert own <= changed(before, after) <= own | fused

  pooled = data.pooled | {"features": data.pooled["features"] + 1}
  after = scales.fit(config, priors(), normal, data._replace(pooled=pooled), judged)
  own = ("gaussians['features']", "evidence['features']")
  assert all(name.startswith(own) for name in changed(before, after))

  moves = normal.moves | {"features": 2 * normal.moves["features"]}
  moved = normal._replace(moves=moves)
  after = scales.fit(config, priors(), moved, data, judged)
  want = {"gaussians['features'].aim", "evidence['features']"}
  assert changed(before, after) == want

  other = map_scales.Edited(raw(123, 12), judged.masks)
  after = scales.fit(config, priors(), normal, data, other)
  assert "map_weights['memory']" in changed(before, after) <= fused


def test_judged_images_reach_neither_the_scales_nor_each_other():
  config, calibration, test = options({}), fitted({}), raw(200, 5)
  kept = jax.tree.map(np.copy, (calibration, test))
  maps, scores = scoring.score(config, calibration, test)[:2]
  other = jax.tree.map(np.copy, test)
  for values in other.maps.values():
    values[3] += 50
  spoilt, after = scoring.score(config, calibration, other)[:2]
  rest = np.array([0, 1, 2, 4])
  np.testing.assert_array_equal(spoilt[rest], maps[rest])
  np.testing.assert_array_equal(after[rest], scores[rest])
  assert np.all(spoilt[3] > maps[3] + 0.01) and after[3] > scores[3] + 1
  jax.tree.map(np.testing.assert_array_equal, (calibration, test), kept)


def test_of_images_that_are_all_the_same_a_little_noise_makes_no_fault():
  """The edits say how much a difference is; without floors the scores were 1e9."""
  one, normal, judged = raw(0, 1), training(50), edited(90)

  def repeated(count: int) -> scoring.RawScores:
    return jax.tree.map(lambda leaf: np.repeat(leaf, count, axis=0), one)

  pooled = {name: np.repeat(rows, 24, axis=0) for name, rows in one.pooled.items()}
  moves = {name: np.zeros_like(rows) for name, rows in normal.moves.items()}
  normal = scales.Normal(pooled, moves, normal.usual)
  fitted = scales.fit(options({}), priors(), normal, repeated(6), judged)
  test = repeated(5)
  rng = np.random.default_rng(0)
  for source in test.maps:
    test.maps[source] += 1e-3 * rng.normal(size=test.maps[source].shape)
  scored = scoring.score(options({}), fitted, test)
  assert np.isfinite(scored.maps).all() and scored.maps.max() < 10
  assert scored.scores.min() > 0 and scored.scores.max() < 10
  for source, values in test.maps.items():
    values[3, 2:4, 3:6] += judged.raw.maps[source].max()
  faulty = scoring.score(options({}), fitted, test).scores
  assert faulty[3] > 2 * scored.scores.max()


def test_edits_that_move_nothing_leave_the_spread_its_floor():
  """Most of them, as scratches may be to the counts; the others say what a fault is."""
  rng = np.random.default_rng(0)
  still = rng.random(5) + 1e-6 * rng.random((24, 5))  # images nearly the same
  moves = rng.normal(size=(20, 5)) * np.where(np.arange(20) < 12, 1e-6, 1)[:, None]
  fitted = gaussian.fit(still, moves)
  far = gaussian.distance(fitted, still[:1] + moves)
  assert 0 < np.median(far) < 1e-3 * far.max()
  normal = scales.Normal({"features": still}, {"features": moves}, None)
  least = scales._smallest_evidence({"features": fitted}, normal)["features"]
  np.testing.assert_allclose(least, 0.005 * far.mean(), rtol=1e-6)


def test_fewer_than_two_validation_images_are_refused():
  for count in (0, 1):
    with pytest.raises(
      ValueError,
      match=rf"at least 2 validation images and found {count}; move some training "
      r"images to validation/good, or raise config\.data\.validation_fraction\.",
    ):
      scales.fit(options({}), priors(), training(50), raw(0, count), None)


def test_saved_scales_come_back_bit_for_bit(tmp_path):
  path = tmp_path / "deep" / "calibration.npz"
  given = {
    "screw_bag": fitted({"positionwise": False}, 7),
    "a b:c.d": fitted({"pooled": (), "maps": ("memory",)}, 8),
    "bare": fitted({"maps": ("memory",)})._replace(priors=scoring.Priors(), usual=None),
  }
  stored.save(path, {"old": given["bare"]})
  assert set(stored.load(path, "")) == {"old"}
  stored.save(path, given)
  loaded = stored.load(path, "")
  assert set(loaded) == set(given)
  for category, calibration in given.items():
    assert bits(loaded[category]) == bits(calibration)
    assert all(type(weight) is float for weight in calibration.map_weights.values())
  assert type(loaded["screw_bag"].gaussians["codes"].rest) is float


@pytest.mark.parametrize("kept", [0, 20, 300])
def test_damaged_scales_are_refused_by_name(tmp_path, kept):
  path = tmp_path / "calibration.npz"
  stored.save(path, {"pins": fitted({})})
  path.write_bytes(path.read_bytes()[:kept])
  with pytest.raises(ValueError, match=r"calibration\.npz is damaged: .* Try again\."):
    stored.load(path, "Try again.")


def test_scales_of_an_earlier_version_are_answered(tmp_path):
  path = tmp_path / "calibration.npz"
  stored.save(path, {"tray": fitted({})._replace(unit={})})
  with pytest.raises(ValueError, match=r"of an earlier version\. Remove it and start"):
    stored.load(path, "")


def test_one_odd_image_among_many_normal_ones_does_not_widen_the_spread():
  values = np.random.default_rng(0).normal(2.0, 0.5, 60)
  clean = scales._moments(values)
  np.testing.assert_allclose(clean, [values.mean(), values.std(ddof=1)], rtol=1e-12)
  odd = np.append(values, 40.0)
  middle = np.median(odd)
  spread = 1.4826 * np.median(np.abs(odd - middle))
  drawn_in = np.append(values, middle + 4 * spread)
  found = scales._moments(odd)
  np.testing.assert_allclose(found, [drawn_in.mean(), drawn_in.std(ddof=1)])
  assert found[1] < 1.2 * clean[1] < odd.std(ddof=1) / 5
  few = np.append(values[:10], 40.0)  # of so few none is called odd
  np.testing.assert_allclose(scales._moments(few), [few.mean(), few.std(ddof=1)])
  alike = np.append(np.ones(50), 3.0)  # most are the same: no spread to go by
  np.testing.assert_allclose(scales._moments(alike), [alike.mean(), alike.std(ddof=1)])


def test_a_training_image_with_codes_of_its_own_does_not_draw_the_threshold_up():
  """Its counts are far from all others', as no new image's would be."""
  normal, data = training(50), raw(0, 8)
  rng = np.random.default_rng(0)
  pooled = {name: np.tile(rows, (3, 1)) for name, rows in normal.pooled.items()}
  pooled = {
    name: rows + 0.01 * rng.normal(size=rows.shape) for name, rows in pooled.items()
  }
  seen = scales.Seen(raw(300, len(pooled["codes"])), np.arange(len(pooled["codes"])))
  units = []
  for odd in (0.0, 30.0):
    pooled["codes"][7, 4] += odd
    given = normal._replace(pooled=pooled, moves={}, seen=seen)
    fitted = scales.fit(options({"pooled": ("codes",)}), priors(), given, data, None)
    units.append(fitted.unit["score"])
    assert len(fitted.normal["score"]) == len(pooled["codes"]) + 8
  assert units[1] < 3 * units[0]


def test_images_that_are_all_the_same_make_no_scores_of_millions():
  """But for rounding; edits move their statistics, and say what is far."""
  normal, validation, shown = training(50), raw(0), edited(90)
  rng = np.random.default_rng(0)

  def same(rows):
    return rows[:1] * (1 + 1e-7 * rng.normal(size=rows.shape))

  pooled = {name: same(np.float64(rows)) for name, rows in normal.pooled.items()}
  moves = {
    name: rng.normal(size=(9, rows.shape[1])) * rows.mean() / 5
    for name, rows in pooled.items()
  }
  alike = validation._replace(
    maps={name: same(values) for name, values in validation.maps.items()},
    pooled={
      name: rows[: len(validation.pooled[name])] for name, rows in pooled.items()
    },
    cells=np.repeat(validation.cells[:1], len(validation.cells), axis=0),
  )
  config = options({})
  calibration = scales.fit(
    config, priors(), normal._replace(pooled=pooled, moves=moves), alike, shown
  )
  judged = scoring.score(config, calibration, validation)
  assert np.isfinite(judged.scores).all() and judged.scores.max() < 1e4
  assert judged.evidence["fused"].max() < 1000  # of edits: 200, in half of them more
  assert judged.evidence["codes"].max() < 1000
  for name, (_, spread) in calibration.evidence.items():
    assert spread > 1e-3, name
