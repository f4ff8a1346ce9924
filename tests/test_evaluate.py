"""A finished run, evaluated and used on images: files, numbers, wrong requests."""

import csv
import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest
import runs
import tifffile

from nps_jax import calibrating
from nps_jax import evaluate
from nps_jax import evaluating
from nps_jax import inference
from nps_jax import predict
from nps_jax import predicting
from nps_jax import publishing
from nps_jax.data import folder
from nps_jax.data import unlabelled
from nps_jax.metrics import auroc
from nps_jax.report import table
from nps_jax.runs import files


@pytest.fixture(scope="module")
def run(run, tmp_path_factory):
  """A copy of the run, for its results."""
  folder = tmp_path_factory.mktemp("evaluated") / "run"
  shutil.copytree(run.folder, folder)
  return dataclasses.replace(run, folder=folder)


@pytest.fixture(scope="module")
def results(run):
  measured = evaluating.evaluate(run)
  publishing.publish(measured, run.folder / files.RESULTS)
  return [each.result for each in measured]


def test_results_have_the_agreed_form(run, results):
  stored = json.loads((run.folder / "results.json").read_text())
  assert stored == results and [each["category"] for each in stored] == [
    "tray",
    "bottle",
  ]
  fields = (
    "category image_auroc image_auroc_95 au_spro au_pro region_by_kind "
    "region_curves pixel_auroc pixel_ap n_test n_by_kind verdict steps seconds"
  )
  for each in stored:
    assert list(each) == [*fields.split(), "config_hash"]
    assert each["verdict"]["promised"] == 0.01 and each["verdict"]["good"] == 5
    assert set(each["au_spro"]["mean"]) == {"0.01", "0.05", "0.1", "0.3", "1.0"}
    assert each["steps"] == 6 and each["seconds"] > 0 and len(each["config_hash"]) == 12
  # Five good images; two of each flaw, and no pair at two images each.
  assert [each["n_test"] for each in stored] == [5 + 2 * 6, 5 + 2 * 8]
  assert set(stored[0]["image_auroc"]["by_kind"]) >= {"missing_pin", "dirt"}
  assert (run.folder / "results.csv").exists() and (run.folder / "results.md").exists()


def test_image_auroc_is_that_of_the_scores(run, root, results):
  data = folder.open_category(root, "tray")
  scored = list(inference.scores(run, data.test, "tray"))
  assert [each.record.id for each in scored] == [each.id for each in data.test]
  by_kind = {}
  for record, _, score, _ in scored:
    by_kind.setdefault(record.kind, []).append(score)
  good = np.array(by_kind["good"])
  want = auroc.auroc(good, np.array(by_kind["logical_anomalies"]))
  assert results[0]["image_auroc"]["logical"] == want


def test_an_image_s_score_depends_on_nothing_but_the_image(run, root):
  data = folder.open_category(root, "bottle")
  whole = {r.id: (m, s) for r, m, s, _ in inference.scores(run, data.test, "bottle")}
  for record, values, score, _ in inference.scores(run, data.test[3:5], "bottle"):
    np.testing.assert_allclose(values, whole[record.id][0], rtol=1e-4, atol=1e-4)
    assert score == pytest.approx(whole[record.id][1], rel=1e-3)


def test_each_test_image_has_its_line_beside_the_results(run, root, results):
  rows = list(csv.DictReader((run.folder / "scores.csv").read_text().splitlines()))
  for name, result in zip(("tray", "bottle"), results, strict=True):
    own = [row for row in rows if row["category"] == name]
    test = folder.open_category(root, name).test
    assert [(row["id"], row["kind"]) for row in own] == [(r.id, r.kind) for r in test]
    good, bad = (
      np.array([float(row["score"]) for row in own if (row["kind"] == "good") == side])
      for side in (True, False)
    )
    assert result["image_auroc"]["pooled"] == auroc.auroc(good, bad)
    alarms = sum(r["verdict"] == "anomalous" for r in own if r["kind"] == "good")
    assert result["verdict"]["false_alarms"] == alarms == (good > 1).sum()
    assert result["verdict"]["misses"] == (bad <= 1).sum()
  other = publishing.scores_path(run.folder / "mine.json")
  assert other == run.folder / "mine_scores.csv"


@pytest.mark.slow
def test_calibration_reads_no_test_image(run, root, tmp_path):
  """With the test images gone, it ends the same."""
  moved = tmp_path / "data"
  shutil.copytree(root, moved, ignore=shutil.ignore_patterns("test", "ground_truth"))
  data = folder.open_all(runs.config(moved).data, 0)
  assert not any(each.test for each in data)
  again = calibrating.calibrate(dataclasses.replace(run, folder=tmp_path), data)
  for name, scales in run.calibrations.items():
    for source, moments in scales.evidence.items():
      np.testing.assert_array_equal(
        moments, again.calibrations[name].evidence[source], err_msg=source
      )


def test_a_moved_data_set_is_found_by_its_root(run, root, results, tmp_path):
  shutil.copytree(root, tmp_path / "moved")
  opened = inference.open_run(run.folder)
  moved = str(tmp_path / "moved")
  again = evaluating.evaluate(opened, root=moved, categories=["tray"])
  assert [each.result for each in again] == results[:1]
  with pytest.raises(FileNotFoundError, match="does not exist"):
    evaluating.evaluate(opened, root=str(tmp_path / "lost"))
  with pytest.raises(ValueError, match=r"knows tray, bottle, not bag; name some of th"):
    evaluating.choose(opened, "bag,tray")


def test_a_renamed_folder_of_a_run_s_only_category_is_known(run, root, tmp_path):
  shutil.copytree(root / "tray", tmp_path / "elsewhere")
  alone = dataclasses.replace(run, about=run.about._replace(categories=("tray",)))
  places = (root, root / "tray", tmp_path / "elsewhere")
  one, two, three = (evaluating.evaluate(alone, root=str(each)) for each in places)
  assert one[0].result["category"] == "tray"
  for other in (two, three):
    assert other[0].result == one[0].result
    ids = [[shot.row["id"] for shot in each[0].shots] for each in (one, other)]
    assert ids[0] == ids[1]
  again = evaluating.evaluate(alone)
  assert again[0].result == one[0].result  # the run knows its own folder still


def test_a_run_s_results_are_replaced_only_on_demand(run, results, monkeypatch):
  def refuse(*_):
    raise AssertionError("nothing is computed")

  before = (run.folder / "results.json").read_bytes()
  with monkeypatch.context() as patch:
    patch.setattr(inference, "open_run", refuse)
    with pytest.raises(
      SystemExit, match=r"\.json, .*/scores\.csv, .*/report\.html would be replaced"
    ):
      evaluate.main([f"--run={run.folder}"])
  opened = inference.open_run(run.folder)
  only = evaluating.evaluate(opened, categories=["tray"])
  monkeypatch.setattr(evaluating, "evaluate", lambda *_, **__: only)
  evaluate.main([f"--run={run.folder}", "--overwrite"])
  assert json.loads((run.folder / "results.json").read_text()) == results[:1]
  table.publish(results, run.folder / files.RESULTS)
  assert (run.folder / "results.json").read_bytes() == before


def test_maps_come_at_the_images_own_size():
  values = np.arange(4.0).reshape(2, 2)
  found = inference.at_size(values, (2, 4))
  assert found.dtype == np.float32
  want = [[0, 0.25, 0.75, 1], [2, 2.25, 2.75, 3]]
  np.testing.assert_allclose(found, want, atol=1e-6)


def test_prediction_writes_maps_overlays_and_scores(run, root, tmp_path):
  source, out = tmp_path / "in", tmp_path / "out"
  (source / "deep").mkdir(parents=True)
  images = sorted((root / "tray" / "test" / "good").glob("*.png"))
  shutil.copy(images[0], source / "a b.png")
  Image.open(images[1]).resize((90, 50)).convert("L").save(source / "deep" / "ü.jpg")
  found = unlabelled.images([str(source)])
  predicting.predict(run, found, "tray", out)
  rows = list(csv.DictReader((out / "scores.csv").read_text("utf-8").splitlines()))
  assert [row["id"] for row in rows] == ["a b", "deep/ü"]
  for row, size in zip(rows, [(64, 64), (50, 90)], strict=True):
    values = tifffile.imread(out / "maps" / f"{row['id']}.tiff")
    assert values.dtype == np.float32 and values.shape == size
    assert float(row["map_max"]) == pytest.approx(values.max(), rel=1e-6)
    with Image.open(out / "overlays" / f"{row['id']}.png") as picture:
      assert picture.size == size[::-1] and picture.mode == "RGB"
  wanted = {
    record.image.name: score
    for record, _, score, _ in inference.scores(
      run, folder.open_category(root, "tray").test, "tray"
    )
    if record.kind == "good"
  }
  assert float(rows[0]["score"]) == pytest.approx(wanted[images[0].name], rel=1e-3)
  with pytest.raises(ValueError, match="holds files already; give a new or empty"):
    predicting.predict(run, found, "tray", out)


def test_verdicts_follow_the_threshold_that_is_asked_for(run, root, tmp_path, capsys):
  """A higher rate of false alarms, a lower threshold; a threshold that is given."""
  images = str(root / "tray" / "test")
  command = [f"--run={run.folder}", f"--images={images}", "--category=tray"]
  scores, limits = None, []
  for at, flag in enumerate(
    ("--false-alarms=0.01", "--false-alarms=0.4", "--threshold=2")
  ):
    out = tmp_path / str(at)
    predict.main([*command, f"--out={out}", flag])
    said = capsys.readouterr().out
    limits.append(float(re.search(r"anomalous: above ([0-9]+[.][0-9]+)", said)[1]))
    rows = list(csv.DictReader((out / "scores.csv").read_text("utf-8").splitlines()))
    scores = [float(row["score"]) for row in rows]
    # The printed threshold is rounded.
    for row, score in zip(rows, scores, strict=True):
      if abs(score - limits[-1]) > 0.01:
        assert row["verdict"] == ("anomalous" if score > limits[-1] else "ok")
    count = sum(row["verdict"] == "anomalous" for row in rows)
    assert said.startswith(f"{len(rows)} images scored, {count} anomalous: ")
  assert limits[0] == 1 and limits[1] < 1 and limits[2] == 2
  normal = run.calibrations["tray"].normal["score"]
  for row, score in zip(rows, scores, strict=True):
    share = 100 * np.mean(normal <= score)
    assert float(row["normal_percentile"]) == pytest.approx(share, abs=0.05 + 1e-9)
    left, top, right, bottom = map(int, row["where"].split())
    assert 0 <= left < right <= 64 and 0 <= top < bottom <= 64
    assert (row["side"] == "global") == (row["source"] in ("features", "codes")) or (
      row["source"] == "codes"
    )
    assert row["what"].startswith("too ") == (row["source"] == "codes")


@pytest.mark.parametrize(
  ("flags", "answer"),
  [
    (["--false-alarms=0"], "'0': expected a number above 0 and below 1, such as 0.01"),
    (["--threshold=high"], "'high': expected a number of 0 or more, such as 1.5"),
    (["--threshold=1", "--false-alarms=0.1"], "not allowed with argument"),
  ],
)
def test_thresholds_that_say_nothing_are_answered(flags, answer, capsys):
  with pytest.raises(SystemExit):
    predict.main(["--run=a", "--images=b", "--out=c", *flags])
  assert answer in capsys.readouterr().err


def test_many_false_alarms_are_told(caplog):
  seen = [(True, 2.0)] * 4 + [(True, 0.5)] * 56 + [(False, 0.9), (False, 1.1)]
  with caplog.at_level("INFO"):
    counted = evaluating.tell_verdicts("tray", seen)
  assert counted == {
    **{"promised": 0.01, "false_alarms": 4, "good": 60},
    **{"misses": 1, "anomalous": 2},
  }
  assert "4 of 60 good test images (false alarms)" in caplog.text
  assert "more than the 1 in 100 that were to be expected" in caplog.text


def test_bad_images_are_listed_and_nothing_is_written(run, tmp_path):
  for name in ("one", "two"):
    (tmp_path / f"{name}.png").write_bytes(b"no image")
  images = unlabelled.images([str(tmp_path)])
  with pytest.raises(ValueError, match=r"2 of 2 images cannot be scored:\n.*one.png"):
    predicting.predict(run, images, "tray", tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_unreadable_images_are_left_out_with_their_reasons(run, root, tmp_path, capsys):
  source, out = tmp_path / "in", tmp_path / "out"
  source.mkdir()
  good = sorted((root / "tray" / "test" / "good").glob("*.png"))
  shutil.copy(good[0], source / "fine.png")
  (source / "cut.png").write_bytes(good[1].read_bytes()[:2000])  # its header is whole
  (source / "empty.png").write_bytes(b"")
  flags = [f"--run={run.folder}", "--images", str(source), "--category=tray"]
  predict.main([*flags, f"--out={out}"])
  said = capsys.readouterr().out
  assert "1 images scored, " in said and "2 images cannot be scored; see" in said
  found = list(csv.DictReader((out / predicting.ERRORS).read_text().splitlines()))
  assert [row["id"] for row in found] == ["cut", "empty"]
  assert found[0]["file"].endswith("cut.png") and "cannot be read" in found[0]["reason"]
  assert "it is empty" in found[1]["reason"]
  rows = list(csv.DictReader((out / "scores.csv").read_text().splitlines()))
  assert [row["id"] for row in rows] == ["fine"]
  with pytest.raises(
    SystemExit, match=r"Error: 2 images cannot be scored; see .*errors"
  ):
    predict.main([*flags, f"--out={tmp_path / 'strict'}", "--strict"])
  assert (tmp_path / "strict" / "scores.csv").exists()


def test_the_category_must_be_one_of_the_run(run):
  assert predict.choose_category(run, "tray") == "tray"
  for name in (None, "bag"):
    with pytest.raises(ValueError, match=r"this run knows tray, bottle\. Name the"):
      predict.choose_category(run, name)


def test_folders_that_are_no_finished_run_are_refused(run, tmp_path):
  with pytest.raises(FileNotFoundError, match=r"is not a run: it has no config\.json"):
    inference.open_run(tmp_path)
  copy = tmp_path / "copy"
  shutil.copytree(run.folder, copy)
  (copy / inference.CALIBRATION).unlink()
  with pytest.raises(FileNotFoundError, match=r"calibration\.npz is missing: the tr"):
    inference.open_run(copy)
  shutil.rmtree(copy / "checkpoints")
  (copy / "modules.safetensors").unlink()
  with pytest.raises(FileNotFoundError, match="has no checkpoint that can be read"):
    inference.open_run(copy)


@pytest.mark.parametrize(
  ("command", "message"),
  [
    (["train", "--workdir=x"], "--config"),
    (["train", "--config={configs}/synthetic.py"], "--workdir"),
    (
      ["train", "--workdir=x", "--config={configs}/synthetic.py", "--config.trian=3"],
      'Did you mean "train"',
    ),
    (
      ["train", "--workdir=x", "--config={configs}/loco.py"],
      "config.data.root is empty. Set it to the folder",
    ),
    (
      [
        *("train", "--workdir=x", "--config={configs}/synthetic.py"),
        "--config.train.steps=few",
      ],
      "train.steps",
    ),
    (["evaluate", "--run=nowhere"], "Error: nowhere is not a run"),
    (
      ["predict", "--run=nowhere", "--out=x", "--images=lost.png"],
      "Error: lost.png does not exist",
    ),
  ],
)
def test_wrong_commands_are_answered(command, message, tmp_path):
  module, *flags = command
  flags = [flag.format(configs=runs.CONFIGS) for flag in flags]
  done = subprocess.run(
    [sys.executable, "-m", f"nps_jax.{module}", *flags],
    capture_output=True,
    text=True,
    check=False,
    cwd=tmp_path,
  )
  assert done.returncode != 0
  assert message in done.stderr + done.stdout, done.stderr
  assert not any(pathlib.Path(tmp_path).iterdir())
