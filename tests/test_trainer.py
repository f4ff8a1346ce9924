"""Training end to end at a tiny size: devices, resumption, caches, faults."""

import pathlib
import shutil

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from PIL import Image
import pytest
import runs

from nps_jax import calibrating
from nps_jax import inference
from nps_jax import lessons
from nps_jax import trainer
from nps_jax import updates
from nps_jax.runs import arrays
from nps_jax.runs import checkpoints
from nps_jax.runs import description
from nps_jax.runs import integrity
from nps_jax.runs import telemetry

PARTS = ("logical/reconstruction", "logical/commitment")
TERMS = ("loss", *PARTS)


def curve(workdir: pathlib.Path) -> np.ndarray:
  lines = telemetry.read(workdir)
  assert [line["step"] for line in lines] == list(range(1, 7))
  return np.array([[line[name] for name in TERMS] for line in lines])


def assert_same(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_array_equal(np.asarray(left), np.asarray(right))


def test_the_loss_falls_and_is_the_sum_of_its_terms(run):
  losses = curve(run.folder)
  assert losses[-1, 0] < losses[0, 0]
  last = telemetry.read(run.folder)[-1]
  assert last["loss"] == pytest.approx(
    sum(value for name, value in last.items() if name in PARTS), rel=1e-6
  )
  levels = [last[f"{PARTS[0]}/f{level}"] for level in (3, 4)]
  assert last[PARTS[0]] == pytest.approx(sum(levels), rel=1e-6)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_end(run, root, tmp_path, monkeypatch):
  advance = telemetry.Telemetry.advance

  def fail(self, step):
    if step == 5:
      raise KeyboardInterrupt
    advance(self, step)

  with monkeypatch.context() as patch:
    patch.setattr(telemetry.Telemetry, "advance", fail)
    with pytest.raises(KeyboardInterrupt):
      trainer.fit(runs.config(root), tmp_path)
  steps = sorted(each.name for each in (tmp_path / checkpoints.STEPS).iterdir())
  assert steps == ["3"]
  again = trainer.fit(runs.config(root), tmp_path)
  assert again.step == 6
  assert_same(again.variables, run.variables)
  assert_same(again.calibrations, run.calibrations)
  np.testing.assert_array_equal(curve(tmp_path), curve(run.folder))


def test_a_finished_run_is_not_trained_again(run, root, monkeypatch):
  def refuse(*_, **__):
    raise AssertionError("no batch is needed")

  monkeypatch.setattr(trainer.pipeline, "train_batches", refuse)
  again = trainer.fit(runs.config(root), run.folder)
  assert_same(again.variables, run.variables)
  assert_same(again.calibrations, run.calibrations)


RESULTS = ("results.json", "results.csv", "results.md", "scores.csv")
PAGES = ("report.html", "report_tray.html", "report_bottle.html")


def extending(run, place):
  """A copy of the finished run that has results too."""
  own = shutil.copytree(run.folder, place)
  for name in (*RESULTS, *PAGES):
    (own / name).write_text("of 6 steps")
  return own


def test_more_steps_extend_a_finished_run(run, root, tmp_path):
  own = extending(run, tmp_path / "own")
  longer = runs.config(root, train__steps=9)
  extended = trainer.fit(longer, own)
  assert extended.step == 9 and extended.about.extended == (6,)
  lines = telemetry.read(own)
  assert [line["step"] for line in lines] == list(range(1, 10))
  assert lines[:6] == telemetry.read(run.folder)
  assert not [name for name in (*RESULTS, *PAGES) if (own / name).exists()]
  old, new = (one.calibrations["tray"] for one in (run, extended))
  assert (old.mean["reconstruction"] != new.mean["reconstruction"]).any()
  assert_same(new.priors, old.priors)
  assert_same(inference.open_run(own).calibrations, extended.calibrations)
  with pytest.raises(ValueError, match=r"steps: 9 in the workdir, 6 asked for; steps"):
    trainer.fit(runs.config(root), own)
  assert integrity.intact(own / inference.CALIBRATION)


def test_results_of_a_calibration_that_is_made_anew_go(run, root, tmp_path):
  own = extending(run, tmp_path / "own")
  trainer.fit(runs.config(root), own)
  assert (own / "results.json").exists()  # the calibration has stayed
  (own / inference.CALIBRATION).unlink()
  again = trainer.fit(runs.config(root), own)
  assert_same(again.calibrations, run.calibrations)
  assert not [name for name in (*RESULTS, *PAGES) if (own / name).exists()]


@pytest.mark.parametrize("kept", [0, 7, 8, 11])
def test_an_extension_killed_early_leaves_nothing_of_other_steps(
  run, root, tmp_path, monkeypatch, kept
):
  """Killed after so many removals or, after all eleven, before the first new step."""
  own, unlink, gone = extending(run, tmp_path / "own"), pathlib.Path.unlink, []

  def killed(path, *given, **named):
    if path.parent == own:
      if len(gone) == kept:
        raise KeyboardInterrupt
      gone.append(path.name)
    unlink(path, *given, **named)

  def stop(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(pathlib.Path, "unlink", killed)
    patch.setattr(trainer, "train", stop)
    with pytest.raises(KeyboardInterrupt):
      trainer.fit(runs.config(root, train__steps=9), own)
  steps = description.read(own).config.train.steps
  assert steps == (9 if kept == 11 else 6)
  assert (own / "results.json").exists() == (kept == 0)
  assert integrity.intact(own / inference.CALIBRATION) == (kept < 8)
  if steps == 9:
    with pytest.raises(FileNotFoundError, match="the training has not ended"):
      inference.open_run(own)


def test_the_modules_edited_copies_are_the_statistics_too(root, tmp_path, monkeypatch):
  made, copies = [], lessons.copies

  def counted(images, size, count, seed):
    made.append((len(images), count, seed))
    return copies(images, size, count, seed)

  monkeypatch.setattr(lessons, "copies", counted)
  config = runs.config(root, train__edits=9, scoring__edits=9, train__steps=1)
  trainer.fit(config, tmp_path / "modules")
  assert made == [(12, 9, 0), (12, 9, 0), (4, 9, 1), (4, 9, 1)]


@pytest.mark.slow
def test_another_scoring_takes_the_training_that_is_there(
  run, root, tmp_path, monkeypatch
):
  def refuse(*_, **__):
    raise AssertionError("no batch is needed")

  monkeypatch.setattr(trainer.pipeline, "train_batches", refuse)
  monkeypatch.setattr(calibrating, "learn_priors", refuse)
  maps = ("memory", "codes", "layout")
  changes = {"scoring__smoothing": 0.0, "scoring__maps": maps}
  workdir = tmp_path / "new"
  checkpoints.Checkpoints(workdir, 3).close()  # a start that came to no step
  arrays.write(workdir / arrays.FROZEN, {"encoder": {"a": np.zeros(2, np.float32)}})
  found = trainer.fit(runs.config(root, **changes), workdir, run.folder)
  assert_same(found.frozen, run.frozen)
  assert found.about.config.scoring.smoothing == 0
  assert_same(found.variables, run.variables)
  assert telemetry.read(found.folder) == telemetry.read(run.folder)
  old, new = run.calibrations["bottle"], found.calibrations["bottle"]
  assert set(old.mean) - set(new.mean) == {"reconstruction"}
  assert_same(new.gaussians, old.gaussians)
  unlike = np.abs(new.mean["memory"] - old.mean["memory"]).max()
  assert 0 < unlike < np.ptp(old.mean["memory"])  # of the same map, unsmoothed
  assert_same(new.priors, old.priors)

  monkeypatch.undo()
  fewer = {"codebook__memory": 0.02, "codebook__parts": 5, "checkpoint__keep": 9}
  found = trainer.fit(runs.config(root, **fewer), tmp_path / "fewer", workdir)
  assert_same(found.variables, run.variables)
  priors = found.calibrations["bottle"].priors
  kept, before = (len(one.memory.patches) for one in (priors, old.priors))
  assert 0 < kept < before / 3
  assert len(priors.vocabulary.codes) == 5 < len(old.priors.vocabulary.codes)


def test_a_training_that_has_not_ended_is_not_taken(run, root, tmp_path):
  begun = shutil.copytree(run.folder, tmp_path / "begun")
  (begun / inference.CALIBRATION).unlink()
  with pytest.raises(FileNotFoundError, match="the training has not ended"):
    trainer.fit(runs.config(root), tmp_path / "new", begun)
  assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_run_with_steps_keeps_them(run, root, tmp_path):
  own = shutil.copytree(run.folder, tmp_path / "own")
  log = own / telemetry.FILE
  log.write_text(log.read_text().replace("{", "{ ", 1))
  text = log.read_text()
  (own / inference.CALIBRATION).unlink()
  trainer.fit(runs.config(root), own, run.folder)
  assert log.read_text() == text
  trainer.fit(runs.config(root), own, tmp_path / "lost")  # of which it needs nothing


def test_another_training_is_not_taken(run, root, tmp_path):
  config = runs.config(root, scoring__smoothing=0.0, seed=3)
  with pytest.raises(ValueError, match="was trained with other settings") as caught:
    trainer.fit(config, tmp_path / "new", run.folder)
  lines = str(caught.value).splitlines()
  assert lines[1:-1] == [f"  config.seed: 0 in {run.folder}, 3 asked for"]
  assert lines[-1].startswith(
    "Only these may differ: codebook.memory, codebook.parts, scoring, "
    "checkpoint.every, "
  )
  with pytest.raises(FileNotFoundError, match="lost is not a run"):
    trainer.fit(config, tmp_path / "new", tmp_path / "lost")
  assert not (tmp_path / "new").exists()


def test_another_model_in_the_same_folder_is_refused(run, root):
  config = runs.config(root, logical__width=24, seed=3)
  with pytest.raises(ValueError, match="holds a run with other settings") as caught:
    trainer.fit(config, run.folder)
  assert "config.logical.width: 16 in the workdir, 24 asked for" in str(caught.value)
  assert "config.seed: 0 in the workdir, 3 asked for" in str(caught.value)


def test_other_images_of_the_same_names_are_refused(run, root, tmp_path):
  moved = shutil.copytree(root, tmp_path / "moved")
  image = next(moved.glob("bottle/train/good/*.png"))
  Image.open(image).transpose(Image.Transpose.ROTATE_180).save(image)
  with pytest.raises(ValueError, match="holds a run with other settings") as caught:
    trainer.fit(runs.config(moved), run.folder)
  name = f"bottle/train/good/{image.stem}"
  assert f"\n  normal images: 1 of other content ({name})" in str(caught.value)
  assert "config." not in str(caught.value)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_at_its_step(
  root, tmp_path, monkeypatch
):
  """A NaN among the encoder's weights makes every feature one."""
  load = trainer.weights.load

  def broken(*source):
    loaded = load(*source)
    return loaded._replace(
      params=jax.tree.map(lambda leaf: leaf * np.nan, loaded.params)
    )

  monkeypatch.setattr(trainer.weights, "load", broken)
  with pytest.raises(FloatingPointError, match=r"At step 1 these .*: logical/") as why:
    trainer.fit(runs.config(root), tmp_path)
  assert "; the first bad level is f3. The last checkpoint is kept" in str(why.value)
  assert not list((tmp_path / checkpoints.STEPS).iterdir())


def test_the_first_bad_level_is_named_with_its_step_and_terms():
  bad = {"logical/local": np.inf, "logical/local/f3": np.inf, "logical/local/f2": 0.5}
  bad |= {"structural/reconstruction/f4": np.nan, "loss": np.nan}
  with pytest.raises(FloatingPointError) as caught:
    trainer.finite(7, jax.tree.map(jnp.float32, bad))
  assert str(caught.value).startswith(
    "At step 7 these loss terms are not finite: logical/local, logical/local/f3, "
  )
  assert "; the first bad level is f3." in str(caught.value)
  with pytest.raises(FloatingPointError, match=r"finite: loss\. The last checkpoint"):
    trainer.finite(7, {"loss": jnp.float32(np.nan), "logical/local/f2": jnp.ones(())})


def test_settings_are_checked_before_anything_is_written(root, tmp_path):
  for changes, message in (
    ({"train__batch_size": 12}, "batch_size is 12, which does not divide over 8"),
    ({"image_size": 100}, r"image_size is 100; expected a positive multiple of 32"),
    ({"data__category": "trya"}, "Did you mean 'tray'"),
    ({"encoder__weights": "lost.safetensors"}, "weights is 'lost.safetensors'"),
  ):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
      trainer.fit(runs.config(root, **changes), tmp_path / "new")
  assert not (tmp_path / "new").exists()


def test_the_rate_falls_to_a_tenth_late(root):
  """Plain weights under a constant gradient: Adam's step is the rate itself."""
  config = runs.config(root, train__weight_decay=0.0, train__steps=10)
  config.train.decay_at, config.train.learning_rate = 0.8, 0.5
  frozen = ml_collections.FrozenConfigDict(config)
  optimizer = updates.make_optimizer(frozen.train)
  params = jnp.zeros(2)
  state, moves = optimizer.init(params), []
  for _ in range(10):
    change, state = optimizer.update(jnp.float32([1.0, -3.0]), state, params)
    moves.append(np.asarray(change))
  want = np.outer([0.5] * 8 + [0.05] * 2, [-1, 1])
  np.testing.assert_allclose(moves, want, rtol=1e-4)  # Adam in float32


def test_what_an_opened_run_holds_can_be_indexed_by_traced_values(run):
  opened = inference.open_run(run.folder)
  leaves = jax.tree.leaves((opened.frozen, opened.variables))
  assert leaves and all(isinstance(leaf, jax.Array) for leaf in leaves)
