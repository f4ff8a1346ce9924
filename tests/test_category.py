"""One category's results: which images and pixels enter which number."""

import json
import pathlib

import numpy as np
from PIL import Image
import pytest

from nps_jax.data import masks
from nps_jax.data import records
from nps_jax.metrics import auroc
from nps_jax.metrics import category
from nps_jax.metrics import spro

SIZE = (16, 20)
DEFECTS = (
  records.Defect("few", 255, 0.5, True),
  records.Defect("dirt", 254, 20.0, False),
  records.Defect("unused", 253, 1.0, True),
)
LOCO = {records.GOOD: 4, records.LOGICAL: 3, records.STRUCTURAL: 2}
VALUES = {records.LOGICAL: (255, 254), records.STRUCTURAL: (254,)}


def build(folder, counts, layout, seed=0):
  """A data set with masks on disk, and a noisy map and score for each image."""
  rng = np.random.default_rng(seed)
  test, scored = [], []
  for kind, count in counts.items():
    for index in range(count):
      values, paths = rng.normal(size=SIZE).astype(np.float32), []
      values = np.round(values, 1)
      for value in VALUES.get(kind, (255,)) if kind != records.GOOD else ():
        mask = np.zeros(SIZE, np.uint8)
        top, left = rng.integers(0, 8, 2)
        mask[top : top + 5, left : left + 6] = value
        values[mask > 0] += 1
        paths.append(folder / f"{kind}_{index}_{value}.png")
        Image.fromarray(mask).save(paths[-1])
      name = f"cat/test/{kind}/{index:03d}"
      image = pathlib.Path(f"{name}.png")
      test.append(records.Record(name, "cat", "test", kind, image, tuple(paths)))
      scored.append((test[-1], values, float(values.max())))
  defects = DEFECTS if layout == "loco" else ()
  return records.Dataset("cat", layout, (), (), tuple(test), defects), scored


def one_group(data, scored, *kinds):
  group = spro.Group()
  for record, values, _ in scored:
    if not kinds or record.kind in kinds:
      truth = masks.read(record, data.defects, SIZE)
      group.add(values, truth.channels, truth.saturation)
  return [group]


def image_scores(scored, *kinds):
  return np.array([score for record, _, score in scored if record.kind in kinds])


def test_loco_subsets(tmp_path):
  data, scored = build(tmp_path, LOCO, "loco")
  got = category.measure(data, iter(scored))
  assert " ".join(got) == (
    "category image_auroc image_auroc_95 au_spro au_pro region_by_kind "
    "region_curves pixel_auroc pixel_ap n_test n_by_kind"
  )
  image, region = got["image_auroc"], got["au_spro"]
  assert list(image) == ["logical", "structural", "mean", "pooled", "by_kind"]
  good = image_scores(scored, records.GOOD)
  for name, kind in (("logical", records.LOGICAL), ("structural", records.STRUCTURAL)):
    assert image[name] == auroc.auroc(good, image_scores(scored, kind))
    group = one_group(data, scored, records.GOOD, kind)
    want = {str(k): v for k, v in spro.au_spro(group, category.LIMITS).items()}
    assert list(region[name]) == ["0.01", "0.05", "0.1", "0.3", "1.0"]
    assert region[name] == pytest.approx(want, abs=1e-14)
    _, heights = spro.channel_curves(group, category.LIMITS, category.RATES)
    curve = got["region_curves"][name]
    assert curve == pytest.approx(heights.mean(axis=0).tolist(), abs=1e-14)
  assert image["mean"] == (image["logical"] + image["structural"]) / 2
  every = image_scores(scored, records.LOGICAL, records.STRUCTURAL)
  assert image["pooled"] == auroc.auroc(good, every)
  # Every anomalous image holds "dirt", only logical ones hold "few".
  assert image["by_kind"] == {
    "few": image["logical"],
    "dirt": image["pooled"],
    "unused": None,
  }
  for limit, mean in region["mean"].items():
    assert mean == (region["logical"][limit] + region["structural"][limit]) / 2
  ranking = spro.pixel_ranking(one_group(data, scored))
  assert (got["pixel_auroc"], got["pixel_ap"]) == pytest.approx(ranking, abs=1e-14)
  assert (got["category"], got["au_pro"], got["n_test"]) == ("cat", None, 9)
  assert got["n_by_kind"] == {"few": 3, "dirt": 5, "unused": 0}
  assert got["image_auroc_95"] is None
  json.dumps(got, allow_nan=False)


def test_a_defect_s_region_score_is_that_of_its_own_channels(tmp_path):
  data, scored = build(tmp_path, LOCO, "loco")
  got = category.measure(data, scored)
  areas = {"few": [], "dirt": []}
  channels = {records.LOGICAL: ("few", "dirt"), records.STRUCTURAL: ("dirt",)}
  for kind, names in channels.items():
    parts = one_group(data, scored, records.GOOD, kind)
    found = spro.channel_areas(parts, category.LIMITS)
    for at, row in enumerate(found):
      areas[names[at % len(names)]].append(row)
  for name, rows in areas.items():
    want = dict(zip(map(str, category.LIMITS), np.mean(rows, axis=0), strict=True))
    assert got["region_by_kind"][name] == pytest.approx(want, abs=1e-14)
  assert got["region_by_kind"]["unused"] is None
  # The channels' means, weighted by how many there are, make up the subset's figure.
  logical = np.mean([*areas["few"], *areas["dirt"][:3]], axis=0)
  assert list(got["au_spro"]["logical"].values()) == pytest.approx(logical, abs=1e-14)


def test_intervals_come_from_samples_of_good_and_of_bad_images(tmp_path):
  data, scored = build(tmp_path, LOCO, "loco")
  got = category.measure(data, scored, bootstrap=400, seed=3)
  assert got == category.measure(data, scored, bootstrap=400, seed=3)
  other = category.measure(data, scored, bootstrap=400, seed=4)
  assert other["image_auroc_95"] != got["image_auroc_95"]
  assert other["image_auroc"] == got["image_auroc"]
  intervals = got["image_auroc_95"]
  assert intervals["by_kind"]["unused"] is None
  good = image_scores(scored, records.GOOD)
  sides = [image_scores(scored, kind) for kind in (records.LOGICAL, records.STRUCTURAL)]
  rng, samples = np.random.default_rng(8), {"logical": [], "structural": [], "mean": []}
  for _ in range(4000):  # slowly, and with draws of its own
    drawn = rng.choice(good, good.size)
    pair = [auroc.auroc(drawn, rng.choice(bad, bad.size)) for bad in sides]
    for name, value in zip(samples, [*pair, np.mean(pair)], strict=True):
      samples[name].append(value)
  for name, values in samples.items():
    low, high = intervals[name]
    assert low <= got["image_auroc"][name] <= high
    # 400 draws tell a percentile to within a few of its neighbours.
    assert np.quantile(values, 0.005) <= low <= np.quantile(values, 0.055), name
    assert np.quantile(values, 0.945) <= high <= np.quantile(values, 0.995), name


@pytest.mark.parametrize("layout", ["loco", "mvtec_ad"])
def test_any_limits_may_be_asked_for(tmp_path, layout):
  counts = LOCO if layout == "loco" else {"good": 3, "hole": 2}
  data, scored = build(tmp_path, counts, layout)
  usual, got = (
    category.measure(data, scored, limits=each) for each in (None, (0.3, 0.2))
  )
  key = "au_spro" if layout == "loco" else "au_pro"
  part, whole = (
    (each[key]["mean"] if layout == "loco" else each[key]) for each in (got, usual)
  )
  assert list(part) == ["0.3", "0.2"]
  assert part["0.3"] == whole["0.3"]
  with pytest.raises(ValueError, match=r"limits are \(2.0,\); each must be above 0"):
    category.measure(data, scored, limits=(2.0,))


def test_order_of_images_is_irrelevant(tmp_path):
  data, scored = build(tmp_path, LOCO, "loco")
  want, got = category.measure(data, scored), category.measure(data, scored[::-1])
  assert got["image_auroc"] == want["image_auroc"]
  assert got["pixel_auroc"] == want["pixel_auroc"]
  assert got["pixel_ap"] == pytest.approx(want["pixel_ap"], abs=1e-14)
  for name, values in want["au_spro"].items():
    assert got["au_spro"][name] == pytest.approx(values, abs=1e-14)


def test_mvtec_ad_layout(tmp_path):
  data, scored = build(tmp_path, {"good": 3, "hole": 2, "cut": 2}, "mvtec_ad")
  got = category.measure(data, scored)
  image, good = got["image_auroc"], image_scores(scored, records.GOOD)
  assert image == {
    "logical": None,
    "structural": None,
    "mean": None,
    "pooled": auroc.auroc(good, image_scores(scored, "hole", "cut")),
    "by_kind": {
      "cut": auroc.auroc(good, image_scores(scored, "cut")),
      "hole": auroc.auroc(good, image_scores(scored, "hole")),
    },
  }
  want = spro.au_spro(one_group(data, scored), (0.3, 0.05))
  assert got["au_spro"] is None
  assert list(got["au_pro"]) == ["0.3", "0.05"]
  want = {str(limit): area for limit, area in want.items()}
  assert got["au_pro"] == pytest.approx(want, abs=1e-14)
  assert got["pixel_auroc"] == spro.pixel_ranking(one_group(data, scored))[0]
  assert got["n_by_kind"] == {"cut": 2, "hole": 2}
  cut = spro.channel_areas(one_group(data, scored), (0.3, 0.05))[2:].mean(axis=0)
  assert list(got["region_by_kind"]["cut"].values()) == pytest.approx(cut, abs=1e-14)


def test_plain_layout_needs_no_masks(tmp_path):
  data, scored = build(tmp_path, {"good": 3, "bad": 2}, "plain")
  bare = [(record._replace(masks=()), values, s) for record, values, s in scored]
  data = data._replace(test=tuple(record for record, _, _ in bare))
  got = category.measure(data, bare)
  want = auroc.auroc(image_scores(bare, "good"), image_scores(bare, "bad"))
  assert got["image_auroc"]["pooled"] == want
  assert got["image_auroc"]["by_kind"] == {"bad": want}
  assert got["au_spro"] is got["au_pro"] is got["pixel_auroc"] is None
  assert got["n_test"] == 5


@pytest.mark.parametrize("layout", ["loco", "mvtec_ad", "plain"])
def test_without_good_or_anomalous_images(tmp_path, layout):
  got = category.measure(*build(tmp_path, {records.GOOD: 2}, layout))
  assert got["image_auroc"]["pooled"] is got["pixel_auroc"] is got["au_pro"] is None
  got = category.measure(*build(tmp_path, {records.LOGICAL: 2}, layout))
  assert got["image_auroc"]["pooled"] is got["image_auroc"]["mean"] is None
  assert set(got["image_auroc"]["by_kind"].values()) == {None}


def test_a_missing_subset_is_none(tmp_path):
  data, scored = build(tmp_path, {records.GOOD: 2, records.LOGICAL: 2}, "loco")
  got = category.measure(data, scored)
  assert got["image_auroc"]["structural"] is got["image_auroc"]["mean"] is None
  assert got["au_spro"]["structural"] is got["au_spro"]["mean"] is None
  assert 0 < got["au_spro"]["logical"]["0.05"] < 1
  assert got["image_auroc"]["logical"] == got["image_auroc"]["pooled"]


def test_bad_scores_are_refused(tmp_path):
  data, scored = build(tmp_path, LOCO, "loco")
  record, values, score = scored[-1]
  name = "cat/test/structural_anomalies/001"

  def refused(message, *last):
    with pytest.raises(ValueError, match=message):
      category.measure(data, [*scored[:-1], *last])

  broken = values.copy()
  broken[3, 3] = np.inf
  refused(f"{name}: its anomaly map or image score holds NaN", (record, broken, score))
  refused(f"{name}: its anomaly map or image", (record, values, float("nan")))
  refused(rf"{name}: .* shape \(16, 20, 1\)", (record, values[..., None], score))
  refused(r"_254\.png is 16 x 20 .* is 15 x 20", (record, values[1:], score))
  refused(f"1 of the 9 test images of cat have no score, the first being {name}")
  refused(f"{name} is scored twice", scored[-1], scored[-1])
  stranger = record._replace(id="cat/test/good/999")
  refused("good/999 is not in the test split of cat", (stranger, values, score))
