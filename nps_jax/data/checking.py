"""Everything that a run will read, read once before its first step."""

from collections.abc import Mapping, Sequence
from concurrent import futures
import hashlib

from absl import logging

from nps_jax import distributed
from nps_jax.data import decoding
from nps_jax.data import encoded
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
  bad, plain = map(distributed.gather_texts, examine(share, defects))
  if bad:
    raise ValueError(complaint(bad, images))
  if plain:
    logging.warning(
      "%d normal images are of one colour all over, and show no product: %s. Remove "
      "them, if the camera failed.",
      *(len(plain), listing.some(plain)),
    )


def fingerprint(datasets: Sequence[records.Dataset]) -> str:
  """A SHA-256 of the normal images, by id and encoded content, whatever their place.

  Several hosts share the work.
  """
  images = [record for data in datasets for record in (*data.train, *data.validation)]
  share = images[distributed.host_index() :: distributed.host_count()]

  def line(record: records.Record) -> str:
    with encoded.opened(record.image) as file:
      return f"{record.id} {hashlib.sha256(file.read()).hexdigest()}"

  with futures.ThreadPoolExecutor(decoding.CHECK_THREADS) as pool:
    lines = distributed.gather_texts(list(pool.map(line, share)))
  distinct = len({text.rpartition(" ")[2] for text in lines})
  if distinct < len(lines):
    logging.warning(
      "Of %d normal images %d are copies of others. What they say of the spread of "
      "normal scores, and so the threshold, counts too much: remove them.",
      *(len(lines), len(lines) - distinct),
    )
  return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


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


def examine(
  images: Sequence[records.Record], defects: Mapping[str, Sequence[records.Defect]]
) -> tuple[list[str], list[str]]:
  """What is wrong with the images and their masks, and which normal images are plain.

  A text for each bad file, and the name of each image to learn from that has one colour
  all over, both in order.

  Every pixel is decoded, for a file that was cut short has a fine header. A mask is
  read as the evaluation does, against its image's size.

  Args:
    defects: those of each category, which its masks stand for; none but in LOCO's.
  """

  with futures.ThreadPoolExecutor(decoding.CHECK_THREADS) as pool:
    by_record = list(
      pool.map(lambda record: _examine(record, defects[record.category]), images)
    )
  bad = [problem for texts, _ in by_record for problem in texts]
  plain = [
    encoded.name(record.image, record.id)
    for record, (_, is_plain) in zip(images, by_record, strict=True)
    if is_plain and record.split != "test"
  ]
  return bad, plain


def _examine(
  record: records.Record, defects: Sequence[records.Defect]
) -> tuple[list[str], bool]:
  """What is wrong with one image and each of its masks; whether it is of one colour."""
  texts, is_plain = [], False
  try:
    pixels = decoding.decode(record)
    is_plain = bool((pixels == pixels[0, 0]).all())
  except ValueError as error:
    texts.append(str(error))
  for at, mask in enumerate(record.masks):
    try:
      masks.check(mask, masks.name_of(record, at), defects, _size(record, mask))
    except ValueError as error:
      texts.append(str(error))
  return texts, is_plain


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
