"""What the modules see, and what they are to make of it."""

import ml_collections
import numpy as np
import pytest
import runs
import test_parts

from nps_jax import edits
from nps_jax import lessons
from nps_jax.data import decoding
from nps_jax.data import encoded
from nps_jax.data import folder
from nps_jax.data import records


@pytest.fixture(scope="module")
def images():
  return [test_parts.picture(noise) for noise in (0.5, 1.0, 1.5)]


def prepared(root, count):
  """What is seen and what is normal, of both categories' images; and these images."""
  config = ml_collections.FrozenConfigDict(runs.config(root, train__edits=count))
  datasets = folder.open_all(config.data, config.seed)
  return lessons.prepare(config, datasets), [data.train for data in datasets]


def test_without_edits_the_training_images_are_seen_and_normal(root):
  taught, images = prepared(root, 0)
  assert taught.seen == taught.normal == (*images[0], *images[1])
  np.testing.assert_array_equal(taught.home, range(24))
  np.testing.assert_array_equal(taught.contexts, [0] * 12 + [1] * 12)


def test_edited_images_are_to_become_those_they_are_copies_of(root):
  taught, images = prepared(root, 9)
  originals = (*images[0], *images[1])
  assert taught.seen[:24] == originals
  np.testing.assert_array_equal(taught.home[:24], range(24))
  assert taught.normal == tuple(originals[index] for index in taught.home)
  np.testing.assert_array_equal(taught.contexts, taught.home // 12)
  edited = range(24, len(taught.seen))
  assert {0, 1} == {int(taught.contexts[index]) for index in edited}
  assert len(edited) <= 2 * 9
  pixels = np.float64([decoding.decode(record, (64, 64)) for record in originals])
  for index in edited:
    record, source = taught.seen[index], taught.normal[index]
    assert record.id.startswith(f"{source.id} (") and record.category == source.category
    # Of all images its own is the most like it, pixel by pixel, but not the same.
    gaps = np.abs(pixels - decoding.decode(record, (64, 64))).mean(axis=(1, 2, 3))
    assert np.argmin(gaps) == taught.home[index] and gaps.min() > 0


def test_copies_are_records_of_the_edited_images(images):
  """Spread evenly over few images, and over a choice of many."""
  given = [
    records.Record(
      id=f"nuts/train/good/{number}",
      category="nuts",
      split="train",
      kind="good",
      image=encoded.png(image),
    )
    for number, image in enumerate(images)
  ]
  side = images[0].shape[0]
  copies = lessons.copies(given, (side, side), 7, 4)
  made = edits.make(images, 3, 4)
  assert len(copies.records) == len(made) == 9
  assert copies.sources.tolist() == [edit.source for edit in made]
  assert copies.kinds == tuple(edit.kind for edit in made)
  for record, edit, mask in zip(copies.records, made, copies.masks, strict=True):
    np.testing.assert_array_equal(decoding.decode(record, (side, side)), edit.image)
    np.testing.assert_array_equal(mask, edit.mask)
    assert record.id.startswith(f"nuts/train/good/{edit.source} ({edit.kind}")
  assert len({record.id for record in copies.records}) == 9
  few = lessons.copies(given, (side, side), 2, 0)
  assert len(few.records) == 2 and len(set(few.sources.tolist())) == 2


def test_where_nothing_can_be_edited_there_are_no_copies(images, monkeypatch):
  monkeypatch.setattr(edits, "make", lambda *given: [])
  record = records.Record("a", "b", "train", "good", encoded.png(images[0]))
  copies = lessons.copies([record], (64, 64), 5, 0)
  assert copies.records == () and copies.masks.shape == (0, 64, 64)
  assert copies.sources.dtype.kind == "i"
