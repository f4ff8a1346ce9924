"""Maps of any method: where they are looked for, what is refused, and their figures."""

import csv
import json
import shutil
import subprocess
import sys

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import ml_collections
import numpy as np
from PIL import Image
import pytest
import runs
import tifffile

from nps_jax import detector
from nps_jax import evaluate
from nps_jax import evaluating
from nps_jax import inference
from nps_jax import publishing
from nps_jax.data import folder
from nps_jax.data import maps
from nps_jax.metrics import category
from nps_jax.runs import description

SIZE = (12, 16)
DEFECTS = [
  {
    "defect_name": name,
    "pixel_value": value,
    "saturation_threshold": 1.0,
    "relative_saturation": True,
  }
  for name, value in (("few", 255), ("dirt", 254))
]
SHOWN = {
  "good": [(), ()],
  "logical_anomalies": [(255, 254)],
  "structural_anomalies": [(254,), (254,)],
}


def build(base, seed=0, levels=1000):
  """A LOCO category "nuts" with noisy float32 maps beside it."""
  rng = np.random.default_rng(seed)
  root, found = base / "data" / "nuts", base / "maps"
  for kind, images in SHOWN.items():
    for index, values in enumerate(images):
      score = rng.normal(size=SIZE)
      for channel, value in enumerate(values):
        mask = np.zeros(SIZE, np.uint8)
        top, left = rng.integers(0, 8, 2)
        mask[top : top + 4, left : left + 5] = value
        score[mask > 0] += 1
        place = root / "ground_truth" / kind / f"{index:03d}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(place / f"{channel:03d}.png")
      name = f"{kind}/{index:03d}"
      (root / "test" / kind).mkdir(parents=True, exist_ok=True)
      Image.new("L", SIZE[::-1]).save(root / "test" / f"{name}.png")
      score = np.round(score * levels) / levels
      put(found / "nuts" / "test" / f"{name}.tiff", score.astype(np.float32))
  (root / "defects_config.json").write_text(json.dumps(DEFECTS))
  return base


def put(path, values):
  path.parent.mkdir(parents=True, exist_ok=True)
  if path.suffix == ".npy":
    np.save(path, values)
  else:
    tifffile.imwrite(path, values)


def change(base, function):
  for path in sorted((base / "maps").rglob("*.tiff")):
    put(path, function(tifffile.imread(path)))


def figures(base):
  data = folder.open_test_split(base / "data", "nuts")
  return category.measure(data, scored(base / "maps", data), bootstrap=20)


def scored(folder, data):
  """What `measure` asks for."""
  return [
    (record, values, row["score"]) for record, values, row in maps.judged(folder, data)
  ]


def assert_close(found, wanted):
  for one, other in zip(leaves(found), leaves(wanted), strict=True):
    assert one == pytest.approx(other, abs=1e-13)


def leaves(tree):
  if isinstance(tree, dict):
    return [leaf for key in sorted(tree) for leaf in leaves(tree[key])]
  return [tree]


def command(base, *more):
  evaluate.main(
    [
      *(f"--maps={base / 'maps'}", f"--dataset={base / 'data'}"),
      *(f"--out={base / 'out' / 'results.json'}", *more),
    ]
  )


def refused(base, message, *more):
  """Every line of the message, and nothing written."""
  with pytest.raises(SystemExit, match=message):
    command(base, *more)
  assert not (base / "out").exists()


@settings(deadline=None, max_examples=6)
@given(st.integers(0, 10**6), st.sampled_from([1, 4, 1000]))
def test_nothing_depends_on_the_scale_or_on_how_files_are_cut(
  tmp_path_factory, seed, levels
):
  base = build(tmp_path_factory.mktemp("case"), seed, levels)
  wanted = figures(base)
  truth = base / "data" / "nuts" / "ground_truth" / "logical_anomalies" / "000"
  (truth / "000.png").rename(truth / "zweites.png")  # channels in another order
  assert_close(figures(base), wanted)
  change(base, lambda m: (m.astype(np.float64) ** 3 + 1e-3 * m) * 1e9 - 7)
  assert_close(figures(base), wanted)
  for path in sorted((base / "maps").rglob("*.tiff")):
    put(path.with_suffix(".npy"), tifffile.imread(path))
    path.unlink()
  assert_close(figures(base), wanted)


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 10**6))
def test_a_mask_may_be_split_over_files_where_regions_are_the_channels(
  tmp_path_factory, seed
):
  base = build(tmp_path_factory.mktemp("case"), seed)
  data = folder.open_test_split(base / "data", "nuts")._replace(
    layout="mvtec_ad", defects=()
  )
  whole = []
  for record in data.test:  # one file with all that the channels cover
    masks = [np.asarray(Image.open(path)) for path in record.masks]
    paths = record.masks[:1]
    if masks:
      merged = np.uint8(255 * np.any(np.stack(masks) > 0, axis=0))
      paths = (record.masks[0].with_name("whole.png"),)
      Image.fromarray(merged).save(paths[0])
    whole.append(record._replace(masks=paths))
  one = data._replace(test=tuple(whole))
  found, wanted = (
    category.measure(each, scored(base / "maps", each)) for each in (data, one)
  )
  assert wanted["au_pro"]["0.3"] > 0
  assert_close(found, wanted)


def test_a_perfect_map_gives_1(tmp_path):
  build(tmp_path)
  for path in sorted((tmp_path / "maps").rglob("*.tiff")):
    place = tmp_path / "data/nuts/ground_truth" / path.parent.name / path.stem
    masks = [np.asarray(Image.open(each)) > 0 for each in place.glob("*.png")]
    put(path, np.float16(np.any(masks, axis=0) if masks else np.zeros(SIZE)))
  found = figures(tmp_path)
  assert set(leaves(found["au_spro"])) == {1.0}
  assert (found["pixel_auroc"], found["pixel_ap"]) == (1.0, 1.0)
  assert set(leaves(found["image_auroc"])) == {1.0}


@pytest.mark.parametrize(
  "dtype", [np.float16, np.float32, np.float64, ">f4", np.uint8, np.int32, np.uint16]
)
def test_maps_of_any_real_type_are_read(tmp_path, dtype):
  values = np.arange(192).reshape(SIZE).astype(dtype)
  for name in ("a.tiff", "a.tif", "a.npy"):
    put(tmp_path / name, values)
    found = maps.read(tmp_path / name, SIZE)
    assert found.dtype.kind == "f"
    np.testing.assert_array_equal(found, np.arange(192).reshape(SIZE))


def test_scores_are_the_maxima_in_the_records_order(tmp_path):
  data = folder.open_test_split(build(tmp_path) / "data", "nuts")
  rows = list(maps.judged(tmp_path / "maps", data))
  assert [record for record, _, _ in rows] == list(data.test)
  for record, values, row in rows:
    path = tmp_path / "maps" / f"{record.id}.tiff"
    np.testing.assert_array_equal(values, tifffile.imread(path))
    assert row["score"] == row["map_max"] == float(values.max())


def test_a_category_may_be_given_as_the_root_and_needs_no_training_images(tmp_path):
  build(tmp_path)
  command(tmp_path, "--category=nuts", "--bootstrap=10", "--limits=0.05,0.2")
  stored = json.loads((tmp_path / "out" / "results.json").read_text())
  assert [each["category"] for each in stored] == ["nuts"]
  assert list(stored[0]["au_spro"]["mean"]) == ["0.05", "0.2"]
  names = sorted(path.name for path in (tmp_path / "out").iterdir())
  results = ["results.csv", "results.json", "results.md"]
  assert names == ["report.html", *results, "scores.csv"]
  evaluate.main(
    [
      *(f"--maps={tmp_path / 'maps'}", f"--dataset={tmp_path / 'data' / 'nuts'}"),
      *(f"--out={tmp_path / 'again.json'}", "--bootstrap=10", "--limits=0.05,0.2"),
    ]
  )
  assert json.loads((tmp_path / "again.json").read_text()) == stored


def test_all_means_every_category(tmp_path):
  build(tmp_path)
  for part in ("data", "maps"):
    shutil.copytree(tmp_path / part / "nuts", tmp_path / part / "bolts")
  command(tmp_path)
  stored = json.loads((tmp_path / "out" / "results.json").read_text())
  assert [each["category"] for each in stored] == ["bolts", "nuts"]
  assert "| mean |" in (tmp_path / "out" / "results.md").read_text()
  shutil.rmtree(tmp_path / "out")
  refused(
    tmp_path, r"category is 'nut'; .* bolts, nuts\. Did you mean", "--category=nut"
  )


def test_every_missing_map_is_named(tmp_path):
  build(tmp_path)
  place = tmp_path / "maps" / "nuts" / "test"
  (place / "good" / "001.tiff").unlink()
  (place / "logical_anomalies" / "000.tiff").unlink()
  refused(
    tmp_path,
    r"2 of the 5 test images of nuts have no anomaly map; missing are .*"
    r"good/001\.tiff, .*logical_anomalies/000\.tiff \(or \.tif, \.npy\)\. "
    r".*maps holds nuts/\.",
  )


@pytest.mark.parametrize(
  ("values", "message"),
  [
    (np.full(SIZE, np.nan, np.float32), "holds NaN or infinity; all scores must"),
    (np.full(SIZE, np.inf), "holds NaN or infinity"),
    (np.zeros((12, 15)), r"has shape \(12, 15\); its image is 12 x 16 \(height x wid"),
    (np.zeros((3, *SIZE)), r"has shape \(3, 12, 16\); its image is 12 x 16"),
    (np.zeros(SIZE, bool), "holds bool; an anomaly map holds real numbers"),
    (np.zeros(SIZE, complex), "holds complex128; an anomaly map holds real"),
  ],
)
def test_wrong_maps_are_refused_by_name(tmp_path, values, message):
  build(tmp_path)
  path = tmp_path / "maps/nuts/test/structural_anomalies/001.tiff"
  path.unlink()
  put(path.with_suffix(".npy"), values)
  refused(tmp_path, rf"structural_anomalies/001\.npy {message}")


def test_damaged_and_doubled_maps_are_refused_by_name(tmp_path):
  build(tmp_path)
  path = tmp_path / "maps/nuts/test/good/000.tiff"
  content = path.read_bytes()
  for broken in (b"", b"no map", content[:40]):
    path.write_bytes(broken)
    refused(tmp_path, r"good/000\.tiff cannot be read as an anomaly map: ")
  path.unlink()
  np.save(path.with_suffix(".npy"), np.array([{}]), allow_pickle=True)
  refused(tmp_path, r"good/000\.npy cannot be read as an anomaly map: .*allow_pickle")
  path.write_bytes(content)
  refused(tmp_path, r"nuts/test/good/000 has 2 anomaly maps: .*000\.tiff, .*000\.npy")


def test_wrong_ground_truth_is_refused_by_name(tmp_path):
  build(tmp_path)
  path = tmp_path / "data/nuts/ground_truth/structural_anomalies/001/000.png"
  for mask, message in (
    (np.full(SIZE, 7, np.uint8), r"holds the value 7, which defects_config\.json does"),
    (np.zeros(SIZE, np.uint8), "is empty: a mask marks at least one pixel"),
    (
      np.full((5, 5), 255, np.uint8),
      r"is 5 x 5 \(height x width\) but its image is 12",
    ),
  ):
    Image.fromarray(mask).save(path)
    refused(tmp_path, rf"structural_anomalies/001/000\.png {message}")
  path.unlink()
  refused(tmp_path, "structural_anomalies")
  shutil.rmtree(tmp_path / "data/nuts/test")
  refused(
    tmp_path, r"nuts has no test images; found .*Put them into .*nuts/test/<kind>"
  )


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    ([], "one of the arguments --run --maps is required"),
    (["--run=x", "--maps=x"], "not allowed with argument"),
    (["--maps=."], "--maps needs --dataset=ROOT, the images, and --out=FILE.json"),
    (["--maps=lost", "--dataset=.", "--out=a.json"], "--maps=lost is not a folder"),
    (["--maps=.", "--dataset=.", "--out=a.txt"], "--out=a.txt must end in .json"),
    (["--run=x", "--scores=a.csv"], "--scores goes with --maps; a run has scores of"),
    (["--run=x", "--limits=0.05,2"], "expected numbers above 0 and at most 1"),
    (["--run=x", "--limits=few"], "expected numbers above 0 and at most 1"),
    (["--run=x", "--bootstrap=-1"], "--bootstrap=-1 must be 0 or more"),
  ],
)
def test_flags_that_do_not_fit_are_answered(flags, message, capsys):
  with pytest.raises(SystemExit):
    evaluate.main(flags)
  assert message in capsys.readouterr().err


def test_a_run_s_flags_reach_its_evaluation(monkeypatch, tmp_path):
  asked = []
  config = ml_collections.FrozenConfigDict(runs.config(tmp_path))
  about = description.Description(config, ("a", "b", "c"), 4, {})
  model = detector.Detector(config, about.categories, about.deepest, None)
  run = inference.Run(tmp_path, 0, about, model, {}, {}, {})
  monkeypatch.setattr(inference, "open_run", lambda folder: run)
  monkeypatch.setattr(
    evaluating, "evaluate", lambda run, **given: asked.append(given) or []
  )
  monkeypatch.setattr(publishing, "publish", lambda *given: None)
  given = {"root": None, "region": None, "options": publishing.Options(None, 7, 3)}
  for names, wanted in (("all", ["a", "b", "c"]), ("a,b", ["a", "b"])):
    flags = ["--run=x", "--bootstrap=7", "--seed=3", f"--category={names}"]
    evaluate.of_run(evaluate.parse(flags), tmp_path / "results.json")
    assert asked.pop() == given | {"categories": wanted}


def test_maps_are_evaluated_without_jax(tmp_path):
  build(tmp_path)
  script = (
    "import sys; from nps_jax import evaluate; evaluate.main(sys.argv[1:]); "
    "assert not {'jax', 'flax', 'grain', 'transformers'} & set(sys.modules)"
  )
  flags = [f"--maps={tmp_path / 'maps'}", f"--dataset={tmp_path / 'data'}"]
  flags.append(f"--out={tmp_path / 'out.json'}")
  subprocess.run([sys.executable, "-c", script, *flags], check=True)


def test_scores_of_one_s_own_take_the_place_of_maxima(tmp_path):
  data = folder.open_test_split(build(tmp_path) / "data", "nuts")
  kinds = {record.id: record.kind for record in data.test}
  path = tmp_path / "mine.csv"
  rows = [
    f"{name},{at + 10 * (kind != 'good')}"
    for at, (name, kind) in enumerate(kinds.items())
  ]
  path.write_text("\n".join(["id,score", *rows]))
  flags = [f"--maps={tmp_path / 'maps'}", f"--dataset={tmp_path / 'data'}"]
  out = tmp_path / "out.json"
  evaluate.main([*flags, f"--out={out}", f"--scores={path}"])
  (result,) = json.loads(out.read_text())
  assert result["image_auroc"]["pooled"] == 1
  with (tmp_path / "out_scores.csv").open() as file:
    found = list(csv.DictReader(file))
  assert [f"{row['id']},{float(row['score']):.0f}" for row in found] == rows
  assert [row["kind"] for row in found] == list(kinds.values())
  for row in found:
    values = tifffile.imread(tmp_path / "maps" / f"{row['id']}.tiff")
    assert float(row["map_max"]) == float(values.max())


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (b"", "needs the columns id and score, .*it has no line"),
    (b"id,value\na,1\n", "needs the columns id and score, .*it has id, value"),
    (b"id,score\na,high\n", "a has 'high'; expected one finite number"),
    (b"id,score\na\n", "a has None; expected one finite number"),
    (b"id,score\na,1\na,2\n", "a is there twice; expected one finite number"),
    (b"id,score\na,inf\n", "a has 'inf'; expected one finite number"),
    (b"id,score\na,1\n", "lacks 5 of 5 test images: nuts/test/.*It has a"),
    (b"\xff\xfe\x00", "cannot be read: "),
  ],
)
def test_scores_that_do_not_fit_are_answered(tmp_path, text, message):
  build(tmp_path)
  path = tmp_path / "mine.csv"
  path.write_bytes(text)
  flags = [f"--maps={tmp_path / 'maps'}", f"--dataset={tmp_path / 'data'}"]
  with pytest.raises(SystemExit, match=rf"Error: --scores=.*mine\.csv:? {message}"):
    evaluate.main([*flags, f"--out={tmp_path / 'out.json'}", f"--scores={path}"])
  assert not (tmp_path / "out.json").exists()
