"""What a run learns of its normal images, by hand and by slow forms of it."""

import dataclasses

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import runs
from scipy import ndimage
import slow

from nps_jax import calibrating
from nps_jax import inference
from nps_jax import lessons
from nps_jax import scoring
from nps_jax import stored
from nps_jax.data import decoding
from nps_jax.data import folder
from nps_jax.models import counts


@pytest.fixture(scope="module")
def data(root):
  return folder.open_category(root, "tray")


def pixels(images, size=64) -> jnp.ndarray:
  shape = (size, size)
  return jnp.asarray(np.stack([decoding.decode(record, shape) for record in images]))


def features(run, images) -> dict[int, np.ndarray]:
  return {
    level: np.asarray(feats)
    for level, feats in run.model.features(
      run.frozen["encoder"], pixels(images)
    ).items()
  }


def test_the_memory_is_a_share_of_the_training_patches(run, data):
  memory = run.calibrations["tray"].priors.memory.patches
  assert memory.shape == (round(0.1 * 12 * 8 * 8), 128 + 256)
  assert memory.dtype == "float16"
  patches = slow.patches(features(run, data.train))
  scale = np.abs(patches).max()
  for row in np.float64(memory[::7]):  # float16 of one of them
    gaps = np.abs(patches.reshape(-1, len(row)) - row)
    assert gaps.max(axis=1).min() < 1e-3 * scale

  judged = slow.patches(features(run, data.test[:3]))
  want = np.float32(slow.candidate_gaps(judged, memory))
  grid = scoring.on_grid(jnp.asarray(want), (16, 16))
  priors = run.calibrations["tray"].priors
  maps = inference.collect(run, data.test[:3], "tray", priors).maps
  np.testing.assert_allclose(maps["memory"], grid, rtol=2e-3, atol=1e-3 * scale)


def test_statistics_are_means_over_positions_and_usual_codes_means_over_images(
  run, data
):
  priors = run.calibrations["tray"].priors
  feats = features(run, data.train)
  belonging = np.float64(counts.belonging(jnp.asarray(feats[3]), priors.vocabulary))
  pooled, usual = calibrating.summarise(run, data.train, "tray", priors)
  shares = belonging.mean(axis=(1, 2))
  np.testing.assert_allclose(pooled["codes"], shares, rtol=1e-3, atol=1e-6)
  mean = belonging.mean(axis=0)
  want = ndimage.gaussian_filter(mean, (1, 1, 0))
  np.testing.assert_allclose(usual, want, rtol=2e-3, atol=1e-4)
  moments = [
    m(feats[level], axis=(1, 2)) for level in (3, 4) for m in (np.mean, np.std)
  ]
  np.testing.assert_allclose(
    pooled["features"], np.concatenate(moments, axis=1), rtol=1e-3, atol=1e-4
  )
  kept = run.calibrations["tray"].usual
  np.testing.assert_allclose(np.float32(kept), np.float32(usual), atol=1e-3)


def copies(kinds: tuple[str, ...], sources: list[int]) -> lessons.Copies:
  return lessons.Copies(
    (), np.array(sources), kinds, np.zeros((len(kinds), 4, 4), bool)
  )


@pytest.mark.parametrize("enough", [2, 3])
def test_moves_are_from_the_edited_image_s_own_and_of_parts_where_there_are_enough(
  monkeypatch, enough
):
  monkeypatch.setattr(calibrating, "ENOUGH", enough)
  rng = np.random.default_rng(0)
  pooled = {name: rng.normal(size=(3, 4)) for name in ("codes", "features")}
  moved = {name: rng.normal(size=(4, 4)) for name in pooled}
  given = copies(("scratch", "erase", "bend", "copy"), [2, 0, 1, 2])
  moves = calibrating._moves(pooled, moved, given)
  want = {name: moved[name] - pooled[name][[2, 0, 1, 2]] for name in pooled}
  np.testing.assert_array_equal(moves["features"], want["features"])
  chosen = [1, 3] if enough == 2 else [0, 1, 2, 3]
  np.testing.assert_array_equal(moves["codes"], want["codes"][chosen])


def test_cells_of_a_mask_are_those_that_are_mostly_in_it():
  mask = np.zeros((1, 8, 12), bool)
  mask[0, :4, 4:7] = True  # three quarters of a cell
  mask[0, 4:, 8:10] = True  # half of one
  np.testing.assert_array_equal(
    calibrating._on_grid(mask), [[[False, True, False], [False, False, False]]]
  )


def rerun(run, tmp_path, **changes) -> inference.Run:
  config = ml_collections.ConfigDict(run.about.config)
  for name, value in changes.items():
    section, field = name.split("__")
    config[section][field] = value
  about = run.about._replace(config=ml_collections.FrozenConfigDict(config))
  return dataclasses.replace(run, folder=tmp_path, about=about, calibrations={})


def test_calibrations_are_kept_and_told_and_priors_are_taken_over(
  run, data, tmp_path, monkeypatch, caplog
):
  fresh = rerun(run, tmp_path, scoring__fusion="equal", scoring__edits=0)
  monkeypatch.setattr(calibrating, "learn_priors", None)  # not asked

  def refused(*given):
    raise AssertionError("no edits are asked for")

  with caplog.at_level("INFO"):
    calibrated = calibrating.calibrate(fresh, [data], source=run, copier=refused)
  own, other = calibrated.calibrations["tray"], run.calibrations["tray"]
  np.testing.assert_array_equal(own.priors.memory.patches, other.priors.memory.patches)
  assert set(own.map_weights.values()) == {1.0}
  assert all(len(normal.aim) == 0 for normal in own.gaussians.values())
  assert "tray: weights in the map: memory 1.00, reconstruction 1.00" in caplog.text
  kept = stored.load(tmp_path / inference.CALIBRATION, "")["tray"]
  assert kept.map_weights == own.map_weights
  monkeypatch.setattr(inference, "collect", None)  # neither is anything fitted again
  again = calibrating.calibrate(fresh, [data])
  np.testing.assert_array_equal(again.calibrations["tray"].usual, own.usual)


def test_other_books_are_not_taken_over(run, tmp_path):
  assert calibrating._same_priors(rerun(run, tmp_path, scoring__edits=0), run)
  for changes in ({"codebook__memory": 0.2}, {"codebook__parts": 9}):
    assert not calibrating._same_priors(rerun(run, tmp_path, **changes), run)


def test_edits_aim_the_statistics_and_weigh_the_maps(run):
  """In the run of these tests, whose encoder is random, by some; exactly elsewhere."""
  calibration = run.calibrations["tray"]
  for name in ("codes", "features"):
    assert (
      0 < len(calibration.gaussians[name].aim) <= runs.SETTINGS["scoring.edits"] + 8
    )
  there = {"memory", "reconstruction", "layout"}
  assert set(calibration.map_weights) == there | {"codes"}
  np.testing.assert_allclose(sum(calibration.map_weights.values()), 4)


def test_without_memory_and_codes_there_are_no_priors(run, data, tmp_path):
  bare = rerun(run, tmp_path, codebook__memory=0.0, codebook__parts=0)
  assert calibrating.learn_priors(bare, data) == scoring.Priors()
  pooled, usual = calibrating.summarise(bare, data.train[:2], "tray", scoring.Priors())
  assert usual is None and set(pooled) == {"features"}


def test_the_rows_that_take_part_depend_on_the_image_alone():
  rows = np.arange(40.0).reshape(20, 2)
  some = calibrating._some(rows, 5, seed=1, index=3)
  assert len(some) == 5 and (np.diff(some[:, 0]) > 0).all()
  assert {tuple(row) for row in some} <= {tuple(row) for row in rows}
  np.testing.assert_array_equal(some, calibrating._some(rows, 5, seed=1, index=3))
  assert not np.array_equal(some, calibrating._some(rows, 5, seed=1, index=4))
  np.testing.assert_array_equal(rows, calibrating._some(rows, 20, seed=1, index=3))


def test_the_pool_of_patches_is_bounded(run, root, monkeypatch):
  """Of many images a part of each one's patches; of few all of them."""
  data = folder.open_category(root, "tray")
  whole = calibrating.learn_priors(run, data)
  monkeypatch.setattr(calibrating, "POOL", 30 * len(data.train))
  pooled = calibrating.learn_priors(run, data)
  share = run.about.config.codebook.memory
  assert (
    len(pooled.memory.patches)
    == round(share * 30 * len(data.train))
    < len(whole.memory.patches)
  )


@pytest.mark.parametrize(
  ("train", "validation", "count"),
  [(12, 6, 12), (1, 3, 0), (200, 39, 200), (200, 40, 0), (900, 6, 200)],
)
def test_training_images_are_looked_at_again_where_few_are_held_out(
  train, validation, count
):
  rows = calibrating.rows_again(train, validation)
  assert len(rows) == count
  if count:
    assert rows[0] == 0 and rows[-1] == train - 1 and np.all(np.diff(rows) > 0)


def test_a_run_s_threshold_knows_all_its_normal_images(run, root):
  data = folder.open_category(root, "tray")
  calibration = run.calibrations["tray"]
  for scores in calibration.normal.values():
    assert len(scores) == len(data.train) + len(data.validation)
  owners = calibration.priors.memory.owners
  assert set(owners.tolist()) <= set(range(len(data.train))) and len(set(owners)) > 1
