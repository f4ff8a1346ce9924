"""Where to look: which image of a region belongs to which record."""

from collections.abc import Iterator, Sequence
import pathlib

from nps_jax.data import listing
from nps_jax.data import records
from nps_jax.runs import files

FOLDER = "region"  # in a run


def attach(
  images: Sequence[records.Record], place: str | pathlib.Path
) -> tuple[records.Record, ...]:
  """The records with their regions.

  Args:
    place: one image, for all; or a folder of images, each under the record's id, the
      id without its category, or the last part of the id, with any suffix of an image.

  Raises:
    FileNotFoundError: the place, or a record's region, is not there; names it.
  """
  place = pathlib.Path(place).expanduser()
  if not place.exists():
    raise FileNotFoundError(
      f"{place} does not exist; config.data.region is an image of where to look, or a "
      "folder with one for each image."
    )
  if place.is_file():
    return tuple(record._replace(region=place) for record in images)
  by_name = {
    path.relative_to(place).with_suffix("").as_posix(): path
    for path in listing.walk(place)
    if listing.is_image(path)
  }
  return tuple(
    record._replace(region=_own(record, by_name, place)) for record in images
  )


def keep(place: str, workdir: pathlib.Path) -> None:
  """Copies the one image of a region for all into a run."""
  source = pathlib.Path(place).expanduser()
  if place and source.is_file():
    files.write_bytes(workdir / FOLDER / source.name, source.read_bytes())


def of_run(workdir: pathlib.Path, place: str) -> str:
  """The region that a run keeps, or else the place that its settings name."""
  return str(next((workdir / FOLDER).glob("*"), place))


def _own(
  record: records.Record, by_name: dict[str, pathlib.Path], place: pathlib.Path
) -> pathlib.Path:
  for name in _names(record):
    if name in by_name:
      return by_name[name]
  raise FileNotFoundError(
    f"{place} has no region for {record.id}; expected an image named "
    f"{' or '.join(dict.fromkeys(_names(record)))}."
  )


def _names(record: records.Record) -> Iterator[str]:
  yield record.id
  yield record.id.partition("/")[2] or record.id
  yield record.id.rpartition("/")[2]
