"""Bad input is refused clearly: every case of tests/bad_*.py, as its command has it.

`python tests/bad_table.py` writes BAD_INPUT.md, the table of what a user sees.
"""

import ast
import contextlib
import csv
import importlib
import pathlib
import re
import types

import bad_archives
import bad_files
import bad_images
import bad_scoring
import bad_table
import bad_training
import bad_trees
import bad_usual
import ml_collections
import numpy as np
from PIL import Image
import pytest
import runs
import tifffile

from nps_jax import detector
from nps_jax import evaluate
from nps_jax import inference
from nps_jax import predict
from nps_jax import predicting
from nps_jax import reasons
from nps_jax import scoring
from nps_jax import train
from nps_jax import trainer
from nps_jax.data import checking
from nps_jax.data import decoding
from nps_jax.data import folder
from nps_jax.data import records
from nps_jax.data import unlabelled
from nps_jax.runs import description


def matches(text, sees):
  """Whether a message is the one of the table."""
  parts = (re.escape(each) for each in sees.split("..."))
  return re.fullmatch(".*".join(parts), text, re.DOTALL)


def contents(here):
  """Every file under a folder with its bytes, and every other entry."""
  return {
    path.relative_to(here).as_posix(): path.read_bytes() if path.is_file() else None
    for path in sorted(here.rglob("*"))
  }


def said(here, command):
  """What the command says, with HERE for the folder; None if it ends well."""
  try:
    command()
  except SystemExit as error:
    return str(error.code).replace(str(here), "HERE")
  return None


def each(cases):
  return pytest.mark.parametrize("case", cases, ids=lambda case: case.title)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
  """A folder with every image of the corpus."""
  place = tmp_path_factory.mktemp("corpus") / "images"
  place.mkdir()
  for at, case in enumerate(bad_images.CASES):
    (place / f"{at:02d}.{case.suffix}").write_bytes(case.content)
  for case in bad_files.CASES:
    case.make(place / case.name)
  return place


@contextlib.contextmanager
def locked():
  """One file cannot be opened: for root, whom rights do not stop, as for others."""
  opened = pathlib.Path.open

  def refuse(path, *given, **named):
    if path.name == bad_files.LOCKED:
      raise PermissionError(13, "Permission denied")
    return opened(path, *given, **named)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pathlib.Path, "open", refuse)
    yield


@pytest.fixture(scope="module")
def predicted(run, corpus):
  """The folder of its prediction, whose exit status is 0."""
  out = corpus.parent / "out"
  with pytest.MonkeyPatch.context() as patch, locked():
    patch.setattr(inference, "open_run", lambda _: run)
    predict.main([f"--run={run.folder}", *of(corpus), f"--out={out}"])
  return out


def same_score(run, images, category):
  """In place of a trained model's."""
  reason = reasons.Reason("local", "memory", (0.0, 0.0, 1.0, 1.0), "")
  for record in images:
    yield inference.Scored(record, np.zeros((4, 4)), 2.0, reason)


def of(corpus):
  return ["--images", str(corpus), "--category=tray"]


def outcomes(command):
  """What becomes of each file of the corpus: its reason, None (read), or "not seen"."""
  found = {}
  for at, case in enumerate(bad_images.CASES):
    reason = f"FILE cannot be read ({case.sees}). Replace or remove it."
    found[f"{at:02d}.{case.suffix}"] = None if case.pixels is not None else reason
  for case in bad_files.CASES:
    sees = case.train if command == "train" else case.predicted
    found[case.name] = None if sees == bad_files.READ else sees
  found["taken.png/inner.png"] = None
  return found


def lines(path):
  return list(csv.DictReader(path.read_text("utf-8").splitlines(keepends=True)))


def shown(text):
  """A name as the tables of a prediction write it."""
  return str(text).encode("utf-8", "backslashreplace").decode()


def test_prediction_scores_what_it_can_and_says_why_of_the_rest(corpus, predicted):
  want = outcomes("predict")
  refused = {shown(corpus / name): sees for name, sees in want.items() if sees}
  refused = {name: sees for name, sees in refused.items() if sees != bad_files.UNSEEN}
  found = {row["file"]: row["reason"] for row in lines(predicted / predicting.ERRORS)}
  assert set(found) == set(refused)
  for name, sees in refused.items():
    assert matches(found[name].replace(name, "FILE"), sees), found[name]
  scored = lines(predicted / predicting.SCORES)
  read = {shown(corpus / name) for name, sees in want.items() if sees is None}
  assert {row["file"] for row in scored} == read
  assert all(np.isfinite(float(row["score"])) for row in scored)


def test_each_scored_image_has_a_map_and_an_overlay_of_its_size(corpus, predicted):
  images = unlabelled.images([str(corpus)])
  read = {name for name, sees in outcomes("predict").items() if sees is None}
  kept = [each for each in images if each.image.relative_to(corpus).as_posix() in read]
  assert len(kept) == len(read)
  want = {*predicting.WRITTEN}
  for record in kept:
    names = [f"maps/{record.id}.tiff", f"overlays/{record.id}.png"]
    size = decoding.original_size(record)
    assert tifffile.imread(predicted / names[0]).shape == size
    with Image.open(predicted / names[1]) as picture:
      assert picture.size == size[::-1]
    parents = [up.as_posix() for name in names for up in pathlib.Path(name).parents]
    want |= {*names, *parents} - {"."}
  assert set(contents(predicted)) == want
  assert {each.name for each in corpus.parent.iterdir()} == {"images", "out"}


def test_a_strict_prediction_leaves_the_same_files_and_fails(
  run, corpus, predicted, tmp_path, monkeypatch
):
  monkeypatch.setattr(inference, "open_run", lambda _: run)
  monkeypatch.setattr(inference, "scores", same_score)
  command = [f"--run={run.folder}", *of(corpus), f"--out={tmp_path}", "--strict"]
  count = len(lines(predicted / predicting.ERRORS))
  wanted = rf"^Error: {count} images cannot be scored; see .*errors\.csv$"
  with locked(), pytest.raises(SystemExit, match=wanted):
    predict.main(command)
  before, after = contents(predicted), contents(tmp_path)
  assert set(after) == set(before)
  assert after[predicting.ERRORS] == before[predicting.ERRORS]


def test_training_finds_the_same_faults_in_the_same_files(corpus, tmp_path):
  here = bad_trees.base(tmp_path)
  place = here / "data/nuts/train/good"
  bad_trees.remove("data/nuts/train/good")(here)
  place.symlink_to(corpus, target_is_directory=True)
  datasets = folder.open_all(runs.config(here / "data", data__category="nuts").data, 0)
  want = outcomes("train")
  seen = {name for name, sees in want.items() if sees != bad_files.UNSEEN}
  train = datasets[0].train
  assert {each.image.relative_to(place).as_posix() for each in train} == seen
  with locked():
    bad = checking.examine(datasets[0].train, {"nuts": datasets[0].defects}).bad
  refused = {name: sees for name, sees in want.items() if sees and name in seen}
  assert len(bad) == len(refused) > decoding.LISTED
  for name, sees in refused.items():
    why = [each for each in bad if each.startswith(f"{place / name} ")]
    assert len(why) == 1 and matches(why[0].replace(str(place / name), "FILE"), sees)
  count = len(seen) + 2 + 3 + 2
  wanted = rf"^{len(bad)} of the {count} image and mask files cannot be used:\n"
  with locked(), pytest.raises(ValueError, match=wanted) as error:
    checking.check(datasets)
  told = str(error.value).splitlines()
  assert told[1 : decoding.LISTED + 1] == [
    each.replace("\n", "\\n") for each in bad[: decoding.LISTED]
  ]
  assert told[decoding.LISTED + 1 :] == [f"and {len(bad) - decoding.LISTED} more"]


@each([case for case in bad_images.CASES if case.pixels is not None])
def test_what_is_read_has_the_right_pixels(case):
  record = records.Record("a", "", "", "", case.content)
  found = decoding.decode(record)
  assert found.shape == case.pixels.shape
  assert np.abs(found - np.float64(case.pixels)).max() <= case.within
  assert decoding.original_size(record) == case.pixels.shape[:2]


@pytest.mark.parametrize(
  ("form", "options"),
  [
    ("BMP", {}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("PNG", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ("WEBP", {"lossless": True}),
  ],
)
def test_a_file_cut_anywhere_is_refused_or_lacks_no_pixel(form, options):
  whole = bad_images.encoded(Image.fromarray(bad_images.noise(9, 11)), form, **options)
  want = decoding.decode(records.Record("a", "", "", "", whole))
  refused = 0
  for length in range(len(whole)):
    try:
      found = decoding.decode(records.Record("a", "", "", "", whole[:length]))
    except ValueError as error:
      assert str(error).startswith("The image of a cannot be read (it is ")
      refused += 1
    else:
      np.testing.assert_array_equal(found, want)
  assert refused >= len(whole) - 20


DATA = "(0123456789"  # what a number or a tuple begins with


class Accepted(Exception):
  """All that the user gave is accepted; the work would begin."""


@each(bad_training.TRAIN + bad_usual.TRAIN)
def test_training_refuses_before_its_first_step(case, tmp_path, monkeypatch):
  here = bad_trees.base(tmp_path)
  case.change(here)
  before = contents(here)
  given = (each.replace("HERE", str(here)).split("=") for each in case.flags)
  changes = {
    name.replace(".", "__"): ast.literal_eval(value) if value[0] in DATA else value
    for name, value in given
  }
  config = runs.config(here / "data", **{"data__category": "all"} | changes)

  def accept(*_):
    raise Accepted

  def value(content):
    return types.SimpleNamespace(value=content)

  monkeypatch.setattr(train.console, "chosen", lambda *_: config)
  monkeypatch.setattr(train, "WORKDIR", value(str(here / "run")))
  monkeypatch.setattr(train, "MULTIHOST", value(False))
  monkeypatch.setattr(trainer, "contexts", accept)  # what follows the checks
  if case.sees == bad_trees.PASSED:
    with pytest.raises(Accepted):
      train.main(["train"])
  else:
    found = said(here, lambda: train.main(["train"]))
    assert matches(found, f"Error: {case.sees}"), found
  assert contents(here) == before


@each(bad_scoring.MAPS)
def test_evaluation_writes_all_or_nothing(case, tmp_path):
  here = bad_trees.base(tmp_path)
  case.change(here)
  before = contents(here)
  flags = [f"--maps={here / 'maps'}", f"--dataset={here / 'data'}", *case.flags]
  found = said(here, lambda: evaluate.main([*flags, f"--out={here / 'out.json'}"]))
  after = contents(here)
  if case.sees == bad_trees.PASSED:
    assert found is None
    new = {"out.json", "out.csv", "out.md", "out_scores.csv", "out.html"}
    assert {name for name in after if after[name] != before.get(name)} == new
  else:
    assert matches(found, f"Error: {case.sees}"), found
    assert after == before


@each(bad_scoring.PREDICT)
def test_prediction_writes_only_into_its_folder(case, tmp_path, monkeypatch):
  case.change(tmp_path)
  before = contents(tmp_path)
  config = ml_collections.FrozenConfigDict(runs.config(tmp_path))
  about = description.Description(config, ("nuts",), 4, {})
  model = detector.Detector(config, about.categories, about.deepest, None)
  fields = {field: {} for field in scoring.Calibration._fields}
  fields |= {"priors": scoring.Priors(), "normal": {"score": np.ones(2)}}
  scales = {"nuts": scoring.Calibration(**fields)}
  stand_in = inference.Run(tmp_path, 0, about, model, {}, {}, scales)
  if not any(flag.startswith("--run") for flag in case.flags):
    monkeypatch.setattr(inference, "open_run", lambda _: stand_in)
  monkeypatch.setattr(inference, "scores", same_score)
  flags = [each.replace("HERE", str(tmp_path)) for each in case.flags]
  command = ["--run=none", f"--images={tmp_path / 'in'}", *flags]
  found = said(tmp_path, lambda: predict.main([*command, f"--out={tmp_path / 'out'}"]))
  after = contents(tmp_path)
  if not case.sees.startswith(bad_trees.PASSED):
    assert matches(found, f"Error: {case.sees}"), found
    assert after == before
    return
  assert found is None
  ids = [row["id"] for row in lines(tmp_path / "out" / predicting.SCORES)]
  assert f"{bad_trees.PASSED}: {', '.join(ids)}" == case.sees
  kept = {name for name in before if not name.startswith(("out/maps", "out/errors"))}
  assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
  new = {name for name in set(after) - kept if after[name] is not None}
  maps = {
    name for each in ids for name in (f"maps/{each}.tiff", f"overlays/{each}.png")
  }
  assert new == {
    f"out/{name}" for name in {*maps, predicting.SCORES, predicting.STARTED}
  }


@each(bad_scoring.OTHERS + bad_archives.CASES)
def test_other_commands_replace_nothing_and_open_no_pickle(case, tmp_path):
  case.change(tmp_path)
  before = contents(tmp_path)
  module = importlib.import_module(f"nps_jax.{case.flags[0]}")
  flags = [each.replace("HERE", str(tmp_path)) for each in case.flags[1:]]
  found = said(tmp_path, lambda: module.main(flags))
  assert matches(found, f"Error: {case.sees}"), found
  assert contents(tmp_path) == before


@each(bad_usual.TOLD)
def test_what_other_tests_hold_true_has_its_test(case):
  name, _, test = case.test.partition("::")
  assert f"\ndef {test}(" in (bad_table.PATH.parent / name).read_text("utf-8")


def test_the_table_is_that_of_the_cases():
  assert bad_table.PATH.read_text("utf-8") == bad_table.table()
  assert len(list(bad_table.rows())) >= 150
