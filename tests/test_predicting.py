"""Predictions that are stopped and go on, and what they are asked to leave out."""

import pathlib

import pytest

from nps_jax import inference
from nps_jax import predict
from nps_jax import predicting
from nps_jax.data import unlabelled
from nps_jax.report import lines
from nps_jax.runs import interruption


def contents(out):
  return {
    path.relative_to(out): path.read_bytes()
    for path in out.rglob("*")
    if path.is_file()
  }


def flags(run, root, out, *more):
  images = root / "bottle" / "test"
  command = [f"--run={run.folder}", f"--images={images}", f"--out={out}"]
  return [*command, "--category=bottle", *more]


@pytest.fixture(scope="module")
def whole(run, root, tmp_path_factory):
  """What an uninterrupted prediction writes."""
  out = tmp_path_factory.mktemp("whole")
  predict.main(flags(run, root, out))
  return contents(out)


def stop_after(monkeypatch, count):
  """Makes scoring end with Ctrl-C after so many images."""
  scores = inference.scores

  def stopping(*arguments):
    for at, scored in enumerate(scores(*arguments)):
      if at == count:
        raise KeyboardInterrupt
      yield scored

  monkeypatch.setattr(inference, "scores", stopping)


@pytest.mark.parametrize("cut", [0, 7])
def test_a_stopped_prediction_goes_on(run, root, tmp_path, whole, monkeypatch, cut):
  """Its files are those of an uninterrupted one, also where a line was half-written."""
  with monkeypatch.context() as patch:
    stop_after(patch, 5)
    with pytest.raises(SystemExit) as stopped:
      predict.main(flags(run, root, tmp_path, "--resume"))
  assert stopped.value.code == interruption.EXIT
  path = tmp_path / lines.NAME
  text = path.read_bytes()
  assert text.count(b"\n") == 1 + 5
  if cut:
    path.write_bytes(text[:-cut])
  scored = []
  write = predicting._write_pictures
  monkeypatch.setattr(
    predicting, "_write_pictures", lambda *a: (scored.append(a[1]), write(*a))
  )
  predict.main(flags(run, root, tmp_path, "--resume"))
  found = contents(tmp_path)
  assert set(found) == set(whole)
  assert [name for name in whole if found[name] != whole[name]] == []
  images = unlabelled.images([str(root / "bottle" / "test")])
  assert scored == list(images[5 - bool(cut) :])


def test_a_finished_prediction_takes_up_new_images_alone(run, root, tmp_path, capsys):
  first, *rest = sorted((root / "bottle" / "test" / "good").glob("*.png"))
  command = [f"--run={run.folder}", "--category=bottle", f"--out={tmp_path}"]
  predict.main([*command, f"--images={first}"])
  before = (tmp_path / lines.NAME).read_bytes()
  predict.main([*command, f"--images={first}", str(rest[0]), str(rest[1]), "--resume"])
  after = (tmp_path / lines.NAME).read_bytes()
  assert after.startswith(before) and after.count(b"\n") == 1 + 3
  assert "3 images scored" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ("--threshold=3", r"threshold: 1\.0 there, 3\.0 asked for"),
    ("--no-maps", r"maps: True there, False asked for"),
  ],
)
def test_a_prediction_goes_on_only_as_it_began(run, root, tmp_path, change, message):
  image = next((root / "bottle" / "test" / "good").glob("*.png"))
  command = [f"--run={run.folder}", "--category=bottle", f"--images={image}"]
  predict.main([*command, f"--out={tmp_path}"])
  with pytest.raises(SystemExit, match=message):
    predict.main([*command, f"--out={tmp_path}", "--resume", change])


def test_a_folder_of_other_files_is_no_prediction_to_go_on_with(run, root, tmp_path):
  (tmp_path / "notes.txt").write_text("mine")
  with pytest.raises(SystemExit, match=r"no prediction\.json says of which run"):
    predict.main(flags(run, root, tmp_path, "--resume"))
  assert (tmp_path / "notes.txt").read_text() == "mine"


def test_maps_and_overlays_can_be_left_out(run, root, tmp_path):
  predict.main(flags(run, root, tmp_path, "--no-maps", "--no-overlays"))
  there = {path.name for path in tmp_path.iterdir()}
  assert there == {lines.NAME, predicting.STARTED}


def test_several_images_follow_one_flag():
  parsed = predict.parse(["--images=a", "b", "--run=r", "c", "--out=o"])
  assert parsed.images == ["a", "b", "c"] and parsed.out == pathlib.Path("o")


def test_lines_are_there_as_soon_as_they_are_added(tmp_path):
  path = tmp_path / "scores.csv"
  appender = lines.Appender(path, ("id", "score"))
  appender.add({"id": "a\nb", "score": 1.5})
  appender.add({"id": "c", "score": 2.5})
  assert path.read_text() == 'id,score\n"a\nb",1.5\nc,2.5\n'
  appender.close()
  path.write_text(path.read_text() + '"d\n')  # cut within a name of two lines
  rows = [{"id": "a\nb", "score": "1.5"}, {"id": "c", "score": "2.5"}]
  assert lines.mend(path) == rows
  assert path.read_text() == 'id,score\n"a\nb",1.5\nc,2.5\n'
