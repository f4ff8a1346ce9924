"""Everything that a run will read, read once before its first step."""

from collections.abc import Mapping, Sequence
from concurrent import futures
import hashlib
from typing import NamedTuple

from absl import logging

from nps_jax import distributed
from nps_jax.data import decoding
from nps_jax.data import encoded
from nps_jax.data import levels
from nps_jax.data import listing
from nps_jax.data import masks
from nps_jax.data import records

FEWEST = 2  # validation images that the calibration can do with


def check(datasets: Sequence[records.Dataset]) -> None:
  """Makes sure that training, calibration and evaluation can read all they need.

  Several hosts share the work, and all of them say the same.

  Raises:
    ValueError: too few validation images; or some images or masks cannot be used: it
      counts and lists them, each with its reason.
  """
  check_counts(datasets)
  images = all_records(datasets)
  share = images[distributed.host_index() :: distributed.host_count()]
  defects = {data.category: data.defects for data in datasets}
  odd = Odd(*map(distributed.gather_texts, examine(share, defects)))
  if odd.bad:
    raise ValueError(complaint(odd.bad, images))
  if odd.plain:
    logging.warning(
      "%d normal images are of one colour all over, and show no product: %s. Remove "
      "them, if the camera failed.",
      *(len(odd.plain), listing.some(odd.plain)),
    )
  masks.tell_wide(odd.wide, odd.inverted, sum(len(each.masks) for each in images))


def digests(datasets: Sequence[records.Dataset]) -> dict[str, str]:
  """The SHA-256 of each normal image's file and region, by id: their content alone.

  Several hosts share the work. Warns of copies.
  """
  images = [record for data in datasets for record in (*data.train, *data.validation)]
  share = images[distributed.host_index() :: distributed.host_count()]

  def line(record: records.Record) -> str:
    content = hashlib.sha256()
    for part in (record.image, record.region):
      if part is not None:
        with encoded.opened(part) as file:
          content.update(file.read())
    return f"{content.hexdigest()} {record.id}"

  with futures.ThreadPoolExecutor(decoding.CHECK_THREADS) as pool:
    lines = distributed.gather_texts(list(pool.map(line, share)))
  by_id = {name: digest for digest, _, name in (text.partition(" ") for text in lines)}
  distinct = len(set(by_id.values()))
  if distinct < len(by_id):
    logging.warning(
      "Of %d normal images %d are copies of others. What they say of the spread of "
      "normal scores, and so the threshold, counts too much: remove them.",
      *(len(by_id), len(by_id) - distinct),
    )
  return {record.id: by_id[record.id] for record in images}


def check_counts(datasets: Sequence[records.Dataset]) -> None:
  """Makes sure that every category can be calibrated; else ValueError."""
  for data in datasets:
    if (count := len(data.validation)) < FEWEST:
      raise ValueError(
        f"{data.category} has {count} validation images; the calibration "
        f"needs {FEWEST} or more. Add normal images to its validation folder or, where "
        "it has none, to train; or raise config.data.validation_fraction."
      )


def all_records(datasets: Sequence[records.Dataset]) -> tuple[records.Record, ...]:
  """Every record of the data sets."""
  return tuple(
    record
    for data in datasets
    for split in (data.train, data.validation, data.test)
    for record in split
  )


class Odd(NamedTuple):
  """What is wrong with images and masks, or odd, each list in their order."""

  bad: list[str]  # a text for each file that cannot be used
  plain: list[str]  # names of normal images to learn from that have one colour all over
  wide: list[str]  # names of masks that mark most of their image
  inverted: list[str]  # names of those that mark its corners too


def examine(
  images: Sequence[records.Record], defects: Mapping[str, Sequence[records.Defect]]
) -> Odd:
  """What is wrong with the images and their masks, or odd.

  Every pixel is decoded, for a file that was cut short has a fine header. A mask is
  read as the evaluation does, against its image's size.

  Args:
    defects: those of each category, which its masks stand for; none but in LOCO's.
  """

  with futures.ThreadPoolExecutor(decoding.CHECK_THREADS) as pool:
    by_record = list(
      pool.map(lambda record: _examine(record, defects[record.category]), images)
    )
  return Odd(*([each for odd in by_record for each in odd[at]] for at in range(4)))


def _examine(record: records.Record, defects: Sequence[records.Defect]) -> Odd:
  """What is wrong with one image and each of its masks, or odd."""
  odd = Odd([], [], [], [])
  try:
    if decoding.is_plain(record) and record.split != "test":
      odd.plain.append(encoded.name(record.image, record.id))
  except ValueError as error:
    odd.bad.append(str(error))
  for at, mask in enumerate(record.masks):
    name = masks.name_of(record, at)
    try:
      marked = masks.check(mask, name, defects, _size(record, mask))
      odd.wide.extend([name] * levels.is_wide(marked))
      odd.inverted.extend([name] * levels.looks_inverted(marked))
    except ValueError as error:
      odd.bad.append(str(error))
  return odd


def _size(record: records.Record, mask: encoded.Encoded) -> tuple[int, int]:
  """The image's size by its header or, where that is damaged too, the mask's own."""
  try:
    return decoding.original_size(record)
  except ValueError:
    return decoding.original_size(record._replace(image=mask))


def complaint(bad: Sequence[str], images: Sequence[records.Record]) -> str:
  """The message on the problems that `examine` finds in all these records."""
  count = sum(1 + len(record.masks) for record in images)
  head = f"{len(bad)} of the {count} image and mask files cannot be used:"
  return decoding.complaint(head, bad)
