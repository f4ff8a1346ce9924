"""Records to batches: order, contents, shards, resume, cache and padding."""

import collections
import io
import itertools

import numpy as np
from PIL import Image
import pytest

from nps_jax.data import decoding
from nps_jax.data import pipeline
from nps_jax.data import reading
from nps_jax.data import records


def record(image, name):
  return records.Record(name, "nuts", "train", "good", image)


def encoded(image):
  buffer = io.BytesIO()
  image.save(buffer, "PNG")
  return buffer.getvalue()


def colours(count, first=0):
  """Records of even images, told apart by their red value."""
  return [
    record(encoded(Image.new("RGB", (5, 4), (first + i, 7, 9))), f"nuts/{first + i}")
    for i in range(count)
  ]


def take(iterator, count):
  found = list(itertools.islice(iterator, count))
  iterator.close()
  return found


def counted_decodes(monkeypatch):
  """How often each record has been decoded, by id."""
  seen, decode = collections.Counter(), decoding.decode

  def counted(each, size):
    seen[each.id] += 1
    return decode(each, size)

  monkeypatch.setattr(decoding, "decode", counted)
  return seen


def train(images, contexts=None, **changed):
  options = {"batch_size": 4, "size": (2, 2), "seed": 0, "threads": 2, **changed}
  contexts = [0] * len(images) if contexts is None else contexts
  return pipeline.train_batches(images, contexts, **options)


def assert_same(found, wanted):
  assert len(found) == len(wanted)
  for one, other in zip(found, wanted, strict=True):
    for left, right in zip(one, other, strict=True):
      assert left.dtype == right.dtype
      np.testing.assert_array_equal(left, right)


def test_each_epoch_has_each_record_once():
  contexts = [1, 0, 0, 2, 0, 1, 1]
  images = [*colours(3), *colours(4, 100)]
  batches = take(train(images, contexts), 14)  # 8 epochs of 7 in batches of 4
  index = np.concatenate([each.index for each in batches])
  epochs = index.reshape(8, 7)
  np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(7), (8, 1)))
  assert len({tuple(each) for each in epochs.tolist()}) > 4
  for batch in batches:
    assert batch.image.shape == (4, 2, 2, 3) and batch.image.dtype == np.uint8
    np.testing.assert_array_equal(batch.valid, np.ones(4, np.float32))
    np.testing.assert_array_equal(batch.context, np.take(contexts, batch.index))
    red = np.where(batch.index < 3, batch.index, 97 + batch.index)
    for row, value in zip(batch.image, red, strict=True):
      np.testing.assert_array_equal(row, np.tile(np.uint8([value, 7, 9]), (2, 2, 1)))


def test_fewer_images_than_rows_are_repeated():
  index = [each.index for each in take(train(colours(3), batch_size=8), 3)]
  epochs = np.concatenate(index).reshape(8, 3)
  np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(3), (8, 1)))


def test_every_record_comes_first_equally_often():
  first = collections.Counter(
    int(next(train(colours(3), batch_size=1, seed=seed, threads=1)).index[0])
    for seed in range(120)
  )
  assert all(count > 20 for count in first.values()) and len(first) == 3


def test_neighbouring_seeds_share_no_epoch():
  orders = {}
  for seed in range(3):
    batches = take(train(colours(20), batch_size=20, seed=seed), 3)
    orders |= {(seed, at): tuple(each.index) for at, each in enumerate(batches)}
  assert len(set(orders.values())) == 9


@pytest.mark.parametrize("cache", [True, False])
def test_resume_equals_uninterrupted(cache):
  images, contexts = colours(7), [0] * 3 + [1] * 4
  whole = take(train(images, contexts, seed=5), 12)
  for start in (0, 1, 5, 10):
    options = {"start_step": start, "threads": 1, "cache": cache}
    found = take(train(images, contexts, seed=5, **options), 12 - start)
    assert_same(found, whole[start:])


def test_skipped_steps_decode_nothing(monkeypatch):
  seen = counted_decodes(monkeypatch)
  options = {"start_step": 10**7, "threads": 1, "cache": False}
  images = colours(9, 200)
  assert next(train(images, **options)).image[..., 0].min() >= 200
  # The batch, and what is read ahead; other tests' threads may still be at work.
  assert 4 <= sum(seen[each.id] for each in images) <= 4 * 4


@pytest.mark.parametrize("count", [2, 4])
def test_shards_together_are_the_whole(count):
  images, contexts = colours(7), [0] * 3 + [1] * 4
  whole = take(train(images, contexts, batch_size=8), 5)
  parts = [
    take(train(images, contexts, batch_size=8, shard_index=i, shard_count=count), 5)
    for i in range(count)
  ]
  joined = [
    records.Batch(*map(np.concatenate, zip(*each, strict=True)))
    for each in zip(*parts, strict=True)
  ]
  assert_same(joined, whole)


def test_the_cache_decodes_each_image_once_if_it_fits(monkeypatch):
  seen = counted_decodes(monkeypatch)
  images = colours(6, 200)
  kept = take(train(images, threads=1), 9)
  assert [seen[each.id] for each in images] == [1] * 6
  monkeypatch.setattr(pipeline, "CACHE_LIMIT", 6 * 2 * 2 * 3 - 1)
  assert_same(take(train(images, threads=1), 9), kept)
  assert min(seen[each.id] for each in images) >= 6


def test_changing_a_batch_changes_no_later_one():
  iterator = train(colours(2), batch_size=2)
  next(iterator).image[:] = 255
  assert take(iterator, 5)[-1].image[..., 0].max() == 1


def test_a_damaged_image_stops_training_by_name():
  pixels = np.random.default_rng(0).integers(0, 256, (60, 90), np.uint8)
  broken = encoded(Image.fromarray(pixels))[:900]
  with pytest.raises(ValueError, match="image of nuts/bad cannot be read"):
    take(train([*colours(2), record(broken, "nuts/bad")]), 3)


def test_wrong_requests_are_refused_at_once():
  with pytest.raises(ValueError, match="no training images"):
    train([])
  with pytest.raises(
    ValueError, match=r"size is 4, .* over 3 hosts\. Use a multiple of"
  ):
    train(colours(2), shard_count=3)
  with pytest.raises(ValueError, match="3 contexts for 2 records"):
    train(colours(2), [0, 1, 0])
  options = {"batch_size": 4, "size": (2, 2), "threads": 1}
  with pytest.raises(ValueError, match="1 contexts for 2 records"):
    reading.eval_batches(colours(2), [0], **options)
  with pytest.raises(ValueError, match="over 3 hosts"):
    reading.eval_batches(colours(2), [0, 0], shard_count=3, **options)


@pytest.mark.parametrize("threads", [1, 3])
def test_evaluation_keeps_the_order_and_pads(threads):
  images = colours(10, first=1)
  options = {"batch_size": 4, "size": (3, 3), "threads": threads}
  found = list(reading.eval_batches(images, [5] * 9 + [2], **options))
  assert len(found) == 3
  index = np.concatenate([each.index for each in found])
  np.testing.assert_array_equal(index, [*range(10), -1, -1])
  np.testing.assert_array_equal(found[2].valid, np.float32([1, 1, 0, 0]))
  np.testing.assert_array_equal(found[2].context, [5, 2, 0, 0])
  red = np.concatenate([each.image for each in found])[..., 0]
  wanted = np.broadcast_to(np.r_[1:11, 0, 0][:, None, None], (12, 3, 3))
  np.testing.assert_array_equal(red, wanted)
  assert not found[2].image[2:].any()


def test_evaluation_shards_yield_equally_many_batches():
  images = colours(5)
  options = {"batch_size": 4, "size": (2, 2), "threads": 1}
  whole = list(reading.eval_batches(images, [0, 1, 2, 3, 4], **options))
  parts = [
    list(
      reading.eval_batches(
        *(images, [0, 1, 2, 3, 4]), shard_index=i, shard_count=2, **options
      )
    )
    for i in range(2)
  ]
  assert [len(each) for each in parts] == [2, 2]
  assert parts[1][1].index.tolist() == [-1, -1]
  joined = [
    records.Batch(*map(np.concatenate, zip(*each, strict=True)))
    for each in zip(*parts, strict=True)
  ]
  assert_same(joined, whole)


def test_nothing_to_evaluate_yields_nothing():
  found = reading.eval_batches([], [], batch_size=4, size=(2, 2), threads=2)
  assert list(found) == []
