"""AU-sPRO, pixel AUROC and pixel AP against the curves drawn threshold by threshold."""

import subprocess
import sys

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from nps_jax.metrics import spro

LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)


def slow_curve(images):
  """FPR and mean sPRO at every distinct score, strictly above, in float64."""
  normal = np.concatenate([m[~c.any(axis=0)] for m, c, _ in images]).astype(np.float64)
  thresholds = {float(score) for m, _, _ in images for score in m.ravel()}
  fpr, height = [], []
  for threshold in [*sorted(thresholds, reverse=True), -np.inf]:
    fpr.append(np.mean(normal > threshold))
    height.append(
      np.mean(
        [
          min(np.sum(np.float64(m)[channel] > threshold) / full, 1)
          for m, channels, saturation in images
          for channel, full in zip(channels, saturation, strict=True)
        ]
      )
    )
  return np.array(fpr), np.array(height)


def slow_area(fpr, height, limit):
  """Trapezoids up to the limit, the last one cut by linear interpolation."""
  area = 0.0
  for x0, x1, y0, y1 in zip(fpr, fpr[1:], height, height[1:], strict=False):
    if x0 >= limit or x1 == x0:
      continue
    end = min(x1, limit)
    area += (end - x0) * (y0 + y0 + (y1 - y0) * (end - x0) / (x1 - x0)) / 2
  return area / limit


def slow_height(fpr, height, rate):
  """The curve at a rate, the upper end of a jump, interpolated between thresholds."""
  at = np.flatnonzero(fpr <= rate)[-1]
  if fpr[at] == rate or at + 1 == len(fpr):
    return height[at]
  share = (rate - fpr[at]) / (fpr[at + 1] - fpr[at])
  return height[at] + share * (height[at + 1] - height[at])


def slow_auroc(images):
  fpr, _ = slow_curve(images)
  merged = [
    (m, c.any(axis=0, keepdims=True), [c.any(axis=0).sum()]) for m, c, _ in images
  ]
  inside = np.concatenate([np.float64(m)[c[0]] for m, c, _ in merged])
  thresholds = {float(score) for m, _, _ in images for score in m.ravel()}
  cuts = [*sorted(thresholds, reverse=True), -np.inf]
  return slow_area(fpr, [np.mean(inside > cut) for cut in cuts], 1.0)


def slow_average_precision(images):
  """The sum over thresholds of recall gained times precision, in float64."""
  inside = np.concatenate([np.float64(m)[c.any(axis=0)] for m, c, _ in images])
  outside = np.concatenate([np.float64(m)[~c.any(axis=0)] for m, c, _ in images])
  total, recall = 0.0, 0.0
  for threshold in sorted({*inside.tolist(), *outside.tolist()}, reverse=True):
    true, false = np.sum(inside >= threshold), np.sum(outside >= threshold)
    total += (true / inside.size - recall) * true / (true + false)
    recall = true / inside.size
  return total


def random_images(seed, levels, dtype=np.float32):
  """Three maps with overlapping channels and a good one; few levels make ties."""
  rng = np.random.default_rng(seed)
  images = []
  for count in (2, 0, 1, 3):
    channels = rng.random((count, 7, 9)) < 0.2
    channels[:, 3, 3] = True
    values = rng.normal(size=(7, 9)) + channels.sum(axis=0)
    values = np.round(values * levels) / levels
    areas = channels.sum(axis=(1, 2))
    saturation = rng.integers(1, areas, endpoint=True) if count else areas
    images.append((values.astype(dtype), channels, saturation.astype(np.int64)))
  return images


def add(group, values, channels, saturation):
  """Adds a map whose channels are masks."""
  group.add(values, [np.flatnonzero(channel) for channel in channels], saturation)


def as_groups(images, sizes=(2, 2)):
  """The images split over groups of these sizes."""
  groups, rest = [], list(images)
  for size in sizes:
    group = spro.Group()
    for image in rest[:size]:
      add(group, *image)
    groups.append(group)
    rest = rest[size:]
  return groups


def check(images, sizes=(2, 2)):
  groups, (fpr, height) = as_groups(images, sizes), slow_curve(images)
  got = spro.au_spro(groups, LIMITS)
  want = {limit: slow_area(fpr, height, limit) for limit in LIMITS}
  assert got == pytest.approx(want, abs=1e-12)
  rates = [0.0, *LIMITS, fpr[len(fpr) // 2]]
  _, heights = spro.channel_curves(groups, LIMITS, rates)
  want = [slow_height(fpr, height, rate) for rate in rates]
  assert heights.mean(axis=0) == pytest.approx(want, abs=1e-12)
  ranking = slow_auroc(images), slow_average_precision(images)
  assert spro.pixel_ranking(groups) == pytest.approx(ranking, abs=1e-12)
  return got


@pytest.mark.parametrize("levels", [0.5, 2, 1e3, 1e6])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_agrees_with_brute_force(levels, dtype):
  check(random_images(1, levels, dtype))
  check(random_images(2, levels, dtype), sizes=(1, 1, 2))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([0.5, 1, 4, 1e3]))
def test_agrees_with_brute_force_anywhere(seed, levels):
  check(random_images(seed, levels))


@pytest.mark.parametrize("value", [0.0, -3.5, 1e30])
def test_constant_maps(value):
  images = [(np.full_like(m, value), c, s) for m, c, s in random_images(3, 1)]
  check(images)
  assert spro.pixel_ranking(as_groups(images))[0] == 0.5


def test_half_equal_negative_and_huge_values():
  images = random_images(4, 1e3)
  check([(np.where(m > np.median(m), m, -7), c, s) for m, c, s in images])
  check([(m - 100, c, s) for m, c, s in images])
  check([(m * np.float32(1e37), c, s) for m, c, s in images])
  check([(m + np.float32(1e6), c, s) for m, c, s in images])


def test_mixed_precision_and_byte_order():
  dtypes = (np.float64, ">f4", np.float16, np.float32)
  images = random_images(5, 64)
  check([(m.astype(d), c, s) for d, (m, c, s) in zip(dtypes, images, strict=True)])


def test_float64_keeps_its_digits():
  values = 1.0 + 2.0**-50 * np.arange(4.0).reshape(2, 2)
  channel = np.array([[[False, False], [False, True]]])
  group = as_groups([(values, channel, np.array([1]))], (1,))
  assert spro.pixel_ranking(group) == (1.0, 1.0)
  assert spro.au_spro(group, [0.05]) == {0.05: 1.0}


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6))
def test_invariances(seed):
  images = random_images(seed, 4, np.float64)
  want = check(images)
  ranking = spro.pixel_ranking(as_groups(images))
  others = {
    "transform": [(np.exp(m / 3), c, s) for m, c, s in images],
    "image order": images[::-1],
    "channel order": [(m, c[::-1], s[::-1]) for m, c, s in images],
  }
  for name, other in others.items():
    got = spro.au_spro(as_groups(other), LIMITS)
    assert got == pytest.approx(want, abs=1e-14), name
    got = spro.pixel_ranking(as_groups(other))
    assert got == pytest.approx(ranking, abs=1e-14), name
  assert spro.au_spro(as_groups(images, (4,)), LIMITS) == pytest.approx(want, abs=1e-14)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6))
def test_a_perfect_map_is_1_and_its_inverse_near_0(seed):
  images = random_images(seed, 4)
  perfect = [(c.any(axis=0) + 0.1 * np.tanh(m), c, s) for m, c, s in images]
  assert spro.au_spro(as_groups(perfect), LIMITS) == dict.fromkeys(LIMITS, 1.0)
  assert spro.pixel_ranking(as_groups(perfect)) == (1.0, 1.0)
  inverse = [(-m, c, s) for m, c, s in perfect]
  assert spro.au_spro(as_groups(inverse), LIMITS) == dict.fromkeys(LIMITS, 0.0)


def test_hand_values():
  values = np.float32([[9, 8, 7, 6], [5, 4, 3, 2]])
  channels = np.zeros((2, 2, 4), bool)
  channels[0, 0, [0, 2]] = True  # scores 9 and 7; one normal pixel, 8, lies between
  channels[1, 1, 1] = True  # score 4, below normal 8, 6 and 5 of five normal pixels
  whole = as_groups([(values, channels, np.array([2, 1]))], (1,))
  # Channel 0 is at 1/2 up to FPR 1/5, then at 1; channel 1 rises to 1 at FPR 3/5.
  got = spro.au_spro(whole, [0.2, 0.4, 1.0])
  want = {0.2: 0.5 / 2, 0.4: 0.75 / 2, 1.0: (0.9 + 0.4) / 2}
  assert got == pytest.approx(want, abs=1e-15)
  saturated = as_groups([(values, channels, np.array([1, 1]))], (1,))
  assert spro.au_spro(saturated, [0.2]) == {0.2: 0.5}  # 9 alone is enough
  ranks = (1, 3, 6)  # of 9, 7 and 4 among all eight pixels
  precision = np.mean([found / rank for found, rank in enumerate(ranks, start=1)])
  want = ((5 + 4 + 2) / 15, precision)
  assert spro.pixel_ranking(whole) == pytest.approx(want, abs=1e-15)
  areas = spro.channel_areas(whole, [1.0, 0.2])
  np.testing.assert_allclose(areas, [[0.9, 0.5], [0.4, 0]], atol=1e-15)


def test_a_tie_is_a_diagonal():
  values = np.float32([[2, 2, 1, 1]])
  channels = np.array([[[True, False, False, False]]])
  group = as_groups([(values, channels, np.array([1]))], (1,))
  got = spro.au_spro(group, [1 / 6, 1 / 3, 1.0])  # rises to 1 at FPR 1/3
  assert got == pytest.approx({1 / 6: 0.25, 1 / 3: 0.5, 1.0: 5 / 6}, abs=1e-15)


def test_maps_may_come_after_a_first_result():
  images = random_images(6, 4)
  group = as_groups(images[:1], (1,))[0]
  spro.au_spro(group_list := [group], LIMITS)
  for image in images[1:]:
    add(group, *image)
  want = spro.au_spro(as_groups(images), LIMITS)
  assert spro.au_spro(group_list, LIMITS) == pytest.approx(want, abs=1e-14)


def test_scores_are_held_once():
  """Sorting takes a group's maps in one by one: no second copy stands beside them."""
  script = """
import pathlib, re, numpy as np
from nps_jax.metrics import spro
def peak():
  status = pathlib.Path("/proc/self/status").read_text()
  return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1024
group = spro.Group()
values = np.random.default_rng(0).random((1024, 1024), np.float32)
before = peak()
for _ in range(64):
  group.add(values, (), np.zeros(0, np.int64))
found = group.normal()
print(peak() - before)
assert found.size == 2**26 and np.all(found[1:] >= found[:-1])
"""
  done = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, check=True
  )
  assert 256 <= float(done.stdout) < 1.3 * 256  # MiB


@pytest.mark.parametrize("piece", [1, 5, 63, 64])
def test_blocks_of_any_size_hold_the_same_scores(piece, monkeypatch):
  monkeypatch.setattr(spro, "PIECE", piece)
  images = random_images(8, 4)
  group = as_groups(images, (4,))[0]
  wanted = np.concatenate([m[~c.any(axis=0)] for m, c, _ in images])
  assert group.normal_count == wanted.size
  np.testing.assert_array_equal(group.normal(), np.sort(wanted))
  assert group.normal_count == wanted.size
  check([(m.astype(d), c, s) for d, (m, c, s) in zip("fdfd", images, strict=True)])


def test_the_caller_may_reuse_its_buffer():
  images = random_images(7, 4)
  want = spro.au_spro(as_groups(images), LIMITS)
  group, buffer = spro.Group(), np.empty((7, 9), np.float32)
  for values, channels, saturation in images:
    buffer[:] = values
    add(group, buffer, channels, saturation)
  assert spro.au_spro([group], LIMITS) == pytest.approx(want, abs=1e-14)


def test_bad_input_is_refused():
  values, one = np.zeros((2, 2), np.float32), np.ones((1, 2, 2), bool)
  none = np.zeros((0, 2, 2), bool)
  with pytest.raises(ValueError, match="map holds NaN or infinity"):
    add(spro.Group(), np.float32([[np.nan]]), none[:, :1, :1], np.zeros(0, int))
  for saturation in (0, 5):
    with pytest.raises(ValueError, match=r"between 1 and the channel's area"):
      add(spro.Group(), values, one, np.array([saturation]))
  normal, covered = spro.Group(), spro.Group()
  add(normal, values, none, np.zeros(0, int))
  add(covered, values, one, np.array([4]))
  with pytest.raises(ValueError, match="0 channels and 4 normal pixels"):
    spro.au_spro([normal], LIMITS)
  with pytest.raises(ValueError, match="1 channels and 0 normal pixels"):
    spro.au_spro([covered], LIMITS)
  with pytest.raises(ValueError, match="4 defective and 0 normal pixels"):
    spro.pixel_ranking([covered])
  for limit in (0.0, 1.5):
    with pytest.raises(ValueError, match="each must be above 0 and at most 1"):
      spro.au_spro([normal, covered], [limit])
