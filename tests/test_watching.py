"""A watched folder: each image that arrives is scored once, when it is whole."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from nps_jax import inference
from nps_jax import predict
from nps_jax import predicting
from nps_jax import watching
from nps_jax.data import unlabelled
from nps_jax.report import lines

LATER = watching.SETTLED + 0.01


@pytest.fixture(scope="module")
def images(root):
  return sorted((root / "bottle" / "test").rglob("*.png"))


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "in").mkdir()
  return tmp_path / "in"


def watcher(run, folder, limit=1.0, **wanted):
  wanted = predicting.Wanted(**wanted)
  out = folder.parent / "out"
  return watching.Watcher(run, "bottle", folder, out, wanted, limit)


def rows(folder):
  return lines.mend(folder.parent / "out" / lines.NAME)


def test_what_arrives_is_scored_as_a_prediction_would(run, folder, images):
  """In folders within, too; other files are left alone."""
  there = watcher(run, folder)
  assert there.look(0.0) == 0
  for at, path in enumerate(images):
    place = folder / f"day{at % 2}" / f"{at}.png"
    place.parent.mkdir(exist_ok=True)
    shutil.copy(path, place)
  (folder / "notes.txt").write_text("no image")
  assert there.look(10.0) == 0  # they might still be growing
  assert there.look(10 + LATER) == len(images)
  assert there.look(99.0) == 0
  chosen = unlabelled.images([str(folder)])
  wanted = {
    str(each.record.image): each for each in inference.scores(run, chosen, "bottle")
  }
  for row in rows(folder):
    scored = wanted.pop(row["file"])
    assert float(row["score"]) == pytest.approx(scored.score, abs=1e-5)
    assert row["source"] == scored.reason.source
    assert row["id"] == pathlib.Path(row["file"]).relative_to(folder).as_posix()
    for kind, suffix in ((predicting.MAPS, "tiff"), (predicting.OVERLAYS, "png")):
      assert (folder.parent / "out" / kind / f"{row['id']}.{suffix}").is_file()
  assert not wanted
  done = there.done()
  assert done.scored == len(images) and done.left_out == 0
  assert done.anomalous == sum(row["verdict"] == "anomalous" for row in rows(folder))


def test_a_growing_file_waits(run, folder, images):
  content = images[0].read_bytes()
  there = watcher(run, folder)
  now = 0.0
  for end in range(50, len(content), len(content) // 4):
    (folder / "a.png").write_bytes(content[:end])
    now += LATER
    assert there.look(now) == 0
  (folder / "a.png").write_bytes(content)
  assert there.look(now + LATER) == 0
  assert there.look(now + 1.5 * LATER) == 0
  assert there.look(now + 2.1 * LATER) == 1
  assert not (folder.parent / "out" / predicting.ERRORS).exists()


def test_a_restart_scores_only_what_is_new(run, folder, images):
  for at in range(3):
    shutil.copy(images[at], folder / f"{at}.png")
  there = watcher(run, folder)
  there.look(0.0)
  assert there.look(LATER) == 3
  path = folder.parent / "out" / lines.NAME
  before, scores = path.read_bytes(), [float(row["score"]) for row in rows(folder)]
  path.write_bytes(before[:-1])  # as a kill leaves it
  shutil.copy(images[3], folder / "3.png")
  shutil.copy(images[4], folder / "0.png")  # scored already: not again
  again = watcher(run, folder)
  again.look(0.0)
  assert again.look(LATER) == 2
  assert [row["id"] for row in rows(folder)] == ["0.png", "1.png", "2.png", "3.png"]
  after = [float(row["score"]) for row in rows(folder)[:3]]
  np.testing.assert_allclose(after, scores, atol=1e-5)
  last = watcher(run, folder)
  last.look(0.0)
  assert last.look(LATER) == 0 and last.done().scored == 4
  anew = watcher(run, folder, overwrite=True)
  anew.look(0.0)
  assert anew.look(LATER) == 4


def test_a_damaged_file_is_listed_until_it_is_whole(run, folder, images):
  content = images[0].read_bytes()
  errors = folder.parent / "out" / predicting.ERRORS
  (folder / "a.png").write_bytes(content[:-40])
  (folder / "b.png").write_bytes(b"")
  (folder / "c.png").write_bytes(content)
  there = watcher(run, folder)
  there.look(0.0)
  assert there.look(LATER) == 1
  listed = lines.mend(errors)
  assert [row["id"] for row in listed] == ["a.png", "b.png"]
  assert "it is empty" in listed[1]["reason"]
  errors.unlink()
  assert there.look(3 * LATER) == 0 and not errors.exists()  # nothing new to tell
  assert there.done().left_out == 2
  for name in ("a.png", "b.png"):
    (folder / name).write_bytes(content)
  there.look(4 * LATER)
  assert there.look(5 * LATER) == 2
  assert not errors.exists() and there.done() == predicting.Done(
    3, there.done().anomalous, 0
  )


def test_files_that_go_again_are_no_error(run, folder, images, monkeypatch):
  there = watcher(run, folder)
  for name in ("a.png", "b.png"):
    shutil.copy(images[0], folder / name)
  there.look(0.0)
  (folder / "a.png").unlink()
  score = there._scorer.score

  def gone(*arguments):
    (folder / "b.png").unlink()  # read, but gone before its files are written
    return score(*arguments)

  monkeypatch.setattr(there._scorer, "score", gone)
  assert there.look(LATER) == 0
  assert there.look(3 * LATER) == 0
  assert there.done() == predicting.Done(0, 0, 0)
  shutil.copy(images[0], folder / "b.png")
  monkeypatch.undo()
  there.look(4 * LATER)
  assert there.look(5 * LATER) == 1


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--watch=missing"], "is no folder"),
    (["--watch={}", "--out={}/out"], "lies within --watch"),
    (["--watch={}", "--out={}"], "lies within --watch"),
  ],
)
def test_wrong_places_are_refused(run, folder, flags, message):
  flags = [flag.format(folder) for flag in flags]
  if len(flags) == 1:
    flags.append(f"--out={folder.parent / 'out'}")
  with pytest.raises(SystemExit, match=message):
    predict.main([f"--run={run.folder}", "--category=bottle", *flags])


def test_it_goes_on_only_as_it_began(run, folder):
  watcher(run, folder)
  with pytest.raises(ValueError, match=r"threshold: 1\.0 there, 2\.0 asked for"):
    watcher(run, folder, limit=2.0)


@pytest.mark.parametrize("flags", [[], ["--images=a", "--watch=b"]])
def test_images_are_named_or_watched_for(capsys, flags):
  with pytest.raises(SystemExit):
    predict.parse(["--run=r", "--out=o", *flags])
  assert "give --images or --watch" in capsys.readouterr().err


def test_the_command_ends_at_sigterm_and_goes_on(run, folder, images):
  out = folder.parent / "out"
  words = [f"--run={run.folder}", f"--watch={folder}", f"--out={out}"]
  for count in (1, 2):
    shutil.copy(images[count], folder / f"{count}.png")
    command = subprocess.Popen(
      (sys.executable, "-m", "nps_jax.predict", *words, "--category=bottle"),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env=dict(os.environ),
    )
    try:
      until = time.monotonic() + 120
      path = out / lines.NAME
      while not path.exists() or path.read_text().count("\n") < 1 + count:
        assert time.monotonic() < until and command.poll() is None
        time.sleep(0.1)
      command.send_signal(signal.SIGTERM)
      said, errors = command.communicate(timeout=60)
    finally:
      command.kill()
    assert command.returncode == 0, errors
    assert f"{count} images scored" in said and "Traceback" not in errors
