"""An export says what its run says, wherever it runs, or is not there at all."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import types

import bad_images
import jax
import ml_collections
import numpy as np
from PIL import Image
import pytest

from nps_jax import config as settings
from nps_jax import export
from nps_jax import inference
from nps_jax import ready
from nps_jax import runtime
from nps_jax import scoring
from nps_jax import verdict
from nps_jax.data import decoding
from nps_jax.data import records
from nps_jax.data import regions
from nps_jax.data import unlabelled
from nps_jax.exporting import checking
from nps_jax.exporting import folder
from nps_jax.runs import integrity

CLOSE = 1e-4


@pytest.fixture(scope="module")
def images(root):
  return unlabelled.images([str(root / "bottle" / "test")])


@pytest.fixture(scope="module")
def onnx_folder(run, tmp_path_factory):
  """The tiny run's bottle, as the command exports it."""
  out = tmp_path_factory.mktemp("exports") / "deep" / "onnx"
  export.main(arguments(run, out, "onnx", "--threshold=0.3"))
  return out


def arguments(run, out, kind, *more):
  flags = [f"--run={run.folder}", f"--out={out}", f"--format={kind}"]
  return [*flags, "--category=bottle", *more]


def test_the_folder_answers_as_the_run_does(run, images, onnx_folder):
  """Batches of any size; the verdicts are those of the threshold that was asked for."""
  model = runtime.Model(onnx_folder)
  wanted = list(inference.scores(run, images, "bottle"))
  together = model.answers(np.stack([model.decode(r.image) for r in images]))
  for record, want, have in zip(images, wanted, together, strict=True):
    assert have.score == pytest.approx(want.score, abs=CLOSE)
    assert have.score == pytest.approx(sum(have.evidence.values()), abs=1e-6)
    assert have.anomalous == (want.score > 0.3)
    np.testing.assert_allclose(have.map, want.map, atol=CLOSE)
    alone = model.score(record.image)
    assert alone.score == pytest.approx(have.score, abs=1e-5)
  assert {answer.anomalous for answer in together} == {False, True}
  assert model.score(images[0].image, threshold=0.0).anomalous
  full = runtime.at_size(together[0].map, (90, 70))
  np.testing.assert_allclose(full, inference.at_size(together[0].map, (90, 70)))


def test_model_json_says_what_is_needed(run, onnx_folder):
  about = json.loads((onnx_folder / "model.json").read_text())
  normal = run.calibrations["bottle"].normal
  assert about["category"] == "bottle" and about["graph"] == "model.onnx"
  assert about["input"]["shape"] == ["batch", 64, 64, 3]
  assert about["input"]["bits"] == 16 and "BILINEAR" in about["input"]["resize"]
  assert about["terms"] == ["fused", "features", "codes"]
  assert about["threshold"] == 0.3 and about["region"] is None
  limit = verdict.threshold(normal[scoring.SCORE], 0.1).value
  assert about["thresholds"]["0.1"] == pytest.approx(limit)
  np.testing.assert_allclose(about["normal_scores"], normal[scoring.SCORE])
  assert about["weights"]["licence"] == "none (random numbers)"
  assert {"nps_jax", "commit", "jax", "onnx"} <= {*about["versions"], "nps_jax"}
  assert about["checked"]["images"] == checking.COUNT >= 20
  assert about["checked"]["difference"] <= CLOSE and about["checked"]["flips"] == 0
  there = {path.name for path in onnx_folder.iterdir()}
  assert there == {*about["sha256"], "model.json", "model.sha256"}
  assert integrity.intact(onnx_folder / "model.json")
  assert [path.name for path in onnx_folder.parent.iterdir()] == ["onnx"]


def test_it_runs_without_jax(onnx_folder, images, tmp_path):
  """With its own file alone, in a process that could import nothing else of ours."""
  package = tmp_path / "nps_jax"
  package.mkdir()
  source = pathlib.Path(runtime.__file__)
  for name in ("runtime.py", "__init__.py"):
    shutil.copy(source.with_name(name), package)
  code = (
    "import sys\n"
    "for name in ('jax', 'flax', 'scipy', 'jaxtyping', 'onnx', 'absl'):\n"
    "  sys.modules[name] = None\n"
    "from nps_jax import runtime\n"
    "assert runtime.__file__.startswith(sys.path[0]), runtime.__file__\n"
    "runtime.main(sys.argv[1:])\n"
  )
  environment = os.environ | {"PYTHONPATH": str(tmp_path)}

  def told(*flags):
    command = [sys.executable, "-c", code, f"--model={onnx_folder}", *flags]
    done = subprocess.run(
      command,
      capture_output=True,
      text=True,
      env=environment,
      cwd=tmp_path,
      check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout

  assert "reference image's answer differs by" in told()
  path, score, said = told("--images", str(images[0].image)).strip().split(",")
  have = runtime.Model(onnx_folder).score(images[0].image)
  assert path == str(images[0].image) and said == ["ok", "anomalous"][have.anomalous]
  assert float(score) == pytest.approx(have.score, abs=1e-5)


def test_stablehlo_in_the_lines_that_are_documented(run, images, tmp_path, capsys):
  export.main(arguments(run, tmp_path / "out", "stablehlo", "--platforms=cpu,tpu"))
  assert "24 images scored both ways" in capsys.readouterr().out
  readme = pathlib.Path(__file__).parent.parent / "launch" / "README.md"
  (code,) = [
    part.partition("```")[0]
    for part in readme.read_text().split("```python\n")
    if "deserialize" in part
  ]
  assert len(code.strip().split("\n")) <= 16
  code = code.replace("FOLDER", str(tmp_path / "out"))
  names = {}
  exec(code.replace("IMAGE", str(images[3].image)), names)
  (want,) = inference.scores(run, images[3:4], "bottle")
  assert names["score"] == pytest.approx(want.score, abs=CLOSE)
  np.testing.assert_allclose(names["map"], want.map, atol=CLOSE)
  about = json.loads((tmp_path / "out" / "model.json").read_text())
  assert about["platforms"] == ["cpu", "tpu"]
  content = bytearray((tmp_path / "out" / "model.stablehlo").read_bytes())
  graph = jax.export.deserialize(content)
  assert graph.platforms == ("cpu", "tpu")
  with pytest.raises(ValueError, match=r"export to stablehlo.*--format=onnx"):
    runtime.Model(tmp_path / "out")


@pytest.mark.parametrize("case", bad_images.CASES, ids=lambda case: case.title)
def test_images_are_read_as_the_run_reads_them(case, tmp_path):
  """Or refused as it refuses them."""
  path = tmp_path / f"image.{case.suffix}"
  path.write_bytes(case.content)
  for bits in (16, 12):
    record = records.Record("a", "", "", "", path, bits=bits)
    try:
      want = decoding.decode(record, (24, 40))
    except ValueError:
      with pytest.raises(ValueError, match="cannot be read"):
        runtime.decode(path, bits, (24, 40))
      continue
    np.testing.assert_array_equal(runtime.decode(path, bits, (24, 40)), want)


@pytest.fixture(scope="module")
def seen(run, tmp_path_factory):
  """The run as if it had been trained with a region: the upper 40 of 64 rows."""
  place = tmp_path_factory.mktemp("camera") / "seen.png"
  rows = np.uint8(255 * (np.arange(64) < 40))[:, None] * np.ones((1, 64), np.uint8)
  Image.fromarray(rows).save(place)
  config = ml_collections.ConfigDict(run.about.config)
  config = settings.assigned(config, {"data.region": str(place)})
  return dataclasses.replace(run, about=run.about._replace(config=config))


def test_outside_of_the_region_the_map_is_lowest(
  seen, images, onnx_folder, tmp_path, monkeypatch
):
  """The graph is the same."""
  content = (onnx_folder / "model.onnx").read_bytes()
  monkeypatch.setattr(folder, "_graph", lambda *_: ("model.onnx", content))
  wanted = folder.Wanted("bottle", "onnx", 1.0)
  folder.write(seen, images, tmp_path / "out", wanted)
  model = runtime.Model(tmp_path / "out")
  marked = regions.attach(images[:4], seen.about.config.data.region)
  for record, want in zip(
    marked, inference.scores(seen, marked, "bottle"), strict=True
  ):
    have = model.score(record.image)
    assert have.score == pytest.approx(want.score, abs=CLOSE)
    np.testing.assert_allclose(have.map, want.map, atol=CLOSE)
    assert (have.map[10:] == have.map.min()).all()
  Image.new("RGB", (32, 64)).save(tmp_path / "narrow.png")
  with pytest.raises(ValueError, match=r"64 x 32.*the region is 64 x 64"):
    model.score(tmp_path / "narrow.png")


def compared(have, limit, count=4):
  """Of a run that gives four images scores and maps of 0.2, 0.4, 0.6 and 0.8."""

  def answer(at):
    score, values = have.get(at, (0.2 * at, np.full((2, 2), 0.2 * at)))
    return runtime.Answer(score, score > limit, {}, values)

  chosen = [records.Record(str(at), "", "", "", b"") for at in range(1, count + 1)]
  read = {record.id: np.full((4, 4, 3), int(record.id), np.uint8) for record in chosen}

  class Scorer(ready.Scorer):
    most = 3

    def __init__(self):
      """Of nothing."""

    def read(self, record):
      return read[record.id]

    def score(self, images, pixels):
      return [
        types.SimpleNamespace(score=0.2 * at, map=np.full((2, 2), 0.2 * at))
        for at in (rows[0, 0, 0] for rows in pixels)
      ]

  answers = lambda pixels: [answer(int(rows[0, 0, 0])) for rows in pixels]  # noqa: E731
  return checking.compare(
    Scorer(), chosen, lambda record: read[record.id], answers, limit
  )


def test_scores_maps_and_verdicts_are_compared():
  assert compared({}, 0.5) == (4, 0.0, 0) and compared({}, 0.5).passed
  high = np.array([[0.6, 0.6], [0.6, 0.61]])
  assert compared({3: (0.6, high)}, 0.5)[1:] == (pytest.approx(0.01), 0)
  assert not compared({3: (0.6, high)}, 0.5).passed
  near = compared({2: (0.4002, np.full((2, 2), 0.4))}, 0.4001)
  assert near[1:] == (pytest.approx(2e-4), 1) and not near.passed
  lost = compared({4: (np.nan, np.full((2, 2), 0.8))}, 0.5)
  assert lost[1:] == (np.inf, 1) and not lost.passed


def test_few_images_are_repeated_with_variations(run, images):
  chosen = checking.spread(images[:5])
  assert [record.id for record in chosen[:6]] == [
    r.id for r in (*images[:5], images[0])
  ]
  assert len(chosen) == checking.COUNT
  assert checking.spread([*images] * 9)[0] == images[0]
  pixels = decoding.decode(images[0], (64, 64))
  rng = np.random.default_rng(0)
  first, second = checking.varied((pixels, pixels + 0), rng)
  assert first.dtype == np.uint8 and not np.array_equal(first, pixels)
  np.testing.assert_array_equal(first, second)


def test_an_export_that_differs_leaves_nothing(
  run, images, onnx_folder, tmp_path, monkeypatch
):
  content = (onnx_folder / "model.onnx").read_bytes()
  monkeypatch.setattr(folder, "_graph", lambda *_: ("model.onnx", content))
  right = runtime.told

  def shifted(*arguments):
    return [answer._replace(map=answer.map + 0.002) for answer in right(*arguments)]

  monkeypatch.setattr(runtime, "told", shifted)
  with pytest.raises(ValueError, match=r"up to 0.002 on 24 images, and 0 of"):
    folder.write(run, images, tmp_path / "out", folder.Wanted("bottle", "onnx", 1.0))
  assert not list(tmp_path.iterdir())


DAMAGES = ("model.json", "model.sha256", "model.onnx", "reference.png", "reference.npy")


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_folder_is_refused(onnx_folder, tmp_path, name):
  copy = tmp_path / "copy"
  shutil.copytree(onnx_folder, copy)
  content = bytearray((copy / name).read_bytes())
  content[len(content) // 2] ^= 1
  (copy / name).write_bytes(content)
  with pytest.raises(ValueError, match=r"is damaged: its SHA-256"):
    runtime.Model(copy)
  (copy / name).unlink()
  with pytest.raises(FileNotFoundError, match=rf"{name} is missing"):
    runtime.Model(copy)


def test_arrays_of_another_size_are_refused(onnx_folder):
  model = runtime.Model(onnx_folder)
  for wrong in (np.zeros((1, 32, 64, 3), np.uint8), np.zeros((1, 64, 64, 3))):
    with pytest.raises(ValueError, match=r"expected \(n, 64, 64, 3\) and uint8"):
      model.answers(wrong)


def test_another_machine_s_answers_are_compared(onnx_folder, tmp_path):
  copy = tmp_path / "copy"
  shutil.copytree(onnx_folder, copy)
  model = runtime.Model(copy)
  assert model.check() < 1e-5
  model.about["reference"]["score"] += 0.01
  with pytest.raises(ValueError, match="says something else here"):
    model.check()


def test_wrong_wishes_are_answered(run, root, tmp_path, capsys, monkeypatch):
  taken = tmp_path / "taken"
  taken.mkdir()
  (taken / "mine").touch()
  empty = tmp_path / "empty"
  empty.mkdir()
  bare = tmp_path / "bare"
  shutil.copytree(run.folder, bare)
  (bare / inference.CALIBRATION).unlink()
  out = tmp_path / "out"
  cases = [
    (arguments(run, taken, "onnx"), "exists and is not empty"),
    (arguments(run, out, "onnx")[:-1], "--category is None"),
    ([*arguments(run, out, "onnx")[:-1], "--category=nuts"], "--category is 'nuts'"),
    ([f"--run={bare}", *arguments(run, out, "onnx")[1:]], "training has not ended"),
    ([f"--run={empty}", *arguments(run, out, "onnx")[1:]], "is not a run"),
    (arguments(run, out, "onnx", "--images", str(empty)), "gives no image"),
    (arguments(run, out, "onnx", "--images", "/nowhere"), "does not exist"),
  ]
  for flags, words in cases:
    with pytest.raises(SystemExit, match=words):
      export.main(flags)
  for flags, words in (
    (arguments(run, out, "torch"), "invalid choice: 'torch'"),
    (arguments(run, out, "stablehlo", "--platforms=cpu,abacus"), "'abacus'"),
  ):
    with pytest.raises(SystemExit):
      export.main(flags)
    assert words in capsys.readouterr().err
  monkeypatch.setitem(sys.modules, "onnx", None)
  monkeypatch.delitem(sys.modules, "nps_jax.exporting.conversion", raising=False)
  monkeypatch.delattr("nps_jax.exporting.conversion", raising=False)
  with pytest.raises(SystemExit, match=r"onnx is not installed; pip install 'nps_jax"):
    export.main(arguments(run, out, "onnx"))
  assert not out.exists() and sorted(os.listdir(tmp_path)) == ["bare", "empty", "taken"]


@pytest.mark.parametrize(
  ("field", "value", "words"),
  [
    ("context.source", "image", "CLIP must see each image"),
    ("encoder.dtype", "bfloat16", "use --format=stablehlo"),
    ("data.region", "FOLDER", "a region for each image"),
  ],
)
def test_runs_that_cannot_be_exported_say_why(
  run, images, tmp_path, field, value, words
):
  config = ml_collections.ConfigDict(run.about.config)
  config = settings.assigned(config, {field: value.replace("FOLDER", str(tmp_path))})
  changed = dataclasses.replace(run, about=run.about._replace(config=config))
  with pytest.raises(ValueError, match=words):
    wanted = folder.Wanted("bottle", "onnx", 1.0)
    folder.write(changed, images, tmp_path / "out", wanted)
  assert not list(tmp_path.iterdir())
