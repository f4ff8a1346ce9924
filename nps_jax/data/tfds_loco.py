"""MVTec LOCO AD, or any data set in its layout, by TensorFlow Datasets.

python -m nps_jax.data.tfds_loco --source=SOURCE --out=DATA_DIR [--category=NAME]

SOURCE is the archive as it was downloaded (.tar.xz), its unpacked folder, the folder of
one category, or one of these in a bucket. A bucket is copied first; it needs a package
(gs://: pip install gcsfs; s3://: s3fs; az://: adlfs) and its usual credentials. For an
archive or a bucket there must be room beside DATA_DIR for the unpacked images while the
command works. TensorFlow is not needed, neither here nor for the training:

python -m nps_jax.train --config=configs/loco.py --workdir=DIR \
  --config.data.source=tfds --config.data.root=DATA_DIR

DATA_DIR holds mvtec_loco/<category>/1.0.0, array_record files of the very bytes of the
images and masks: nothing is encoded again, and the same records come back.
"""

import argparse
from collections.abc import Iterator, Sequence
import pathlib
import tempfile
from typing import Any

import tensorflow_datasets as tfds

from nps_jax import console
from nps_jax.data import archives
from nps_jax.data import checking
from nps_jax.data import folder
from nps_jax.data import listing
from nps_jax.data import prepared
from nps_jax.data import records

CATEGORIES = (
  "breakfast_box",
  "juice_bottle",
  "pushpins",
  "screw_bag",
  "splicing_connectors",
)
NEEDED = (*prepared.SPLITS, "defects_config.json")


class MvtecLoco(tfds.core.GeneratorBasedBuilder):
  """The images of one category, in the folder's order, with their masks.

  The metadata list what a record holds besides pixels, so that opening a data set reads
  none of its images.
  """

  VERSION = tfds.core.Version(prepared.VERSION)
  BUILDER_CONFIGS = tuple(tfds.core.BuilderConfig(name=name) for name in CATEGORIES)
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    "The folder that the archive of MVTec LOCO AD unpacks to: it holds the categories. "
    f"{prepared.COMMAND} unpacks the archive by itself."
  )

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description="MVTec LOCO AD (CC BY-NC-SA 4.0), or a data set in its layout.",
      homepage="https://www.mvtec.com/company/research/datasets/mvtec-loco",
      features=tfds.features.FeaturesDict(
        {
          "id": tfds.features.Text(),
          "kind": tfds.features.Text(),
          "image": tfds.features.Image(),
          "masks": tfds.features.Sequence(tfds.features.Image(shape=(None, None, 1))),
        }
      ),
      disable_shuffling=True,
      metadata=tfds.core.MetadataDict(),
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
    data = read_source(pathlib.Path(dl_manager.manual_dir), self.builder_config.name)
    self.info.metadata["defects"] = [defect._asdict() for defect in data.defects]
    splits = {split: getattr(data, split) for split in prepared.SPLITS}
    self.info.metadata["records"] = {
      split: [[record.id, record.kind, len(record.masks)] for record in images]
      for split, images in splits.items()
    }
    return {split: self._generate_examples(images) for split, images in splits.items()}

  def _generate_examples(
    self, images: Sequence[records.Record]
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for at, record in enumerate(images):
      # Of a path tfds takes the file's bytes; an array it would encode anew.
      files = {"image": record.image, "masks": list(record.masks)}
      yield at, {"id": record.id, "kind": record.kind, **files}


def prepare(source: str, out: pathlib.Path, category: str = "all") -> tuple[str, ...]:
  """Writes the categories into `out`, each whole or not at all; returns their names.

  Args:
    source: a folder or an archive, here or in a bucket.
    category: one name, several with commas, or "all" of the source.

  Raises:
    FileNotFoundError: there is no such source.
    ValueError: a category is there already, is not in the source, or is not in MVTec
      LOCO AD's layout; an image cannot be read; the archive is damaged or unsafe.
  """
  with archives.as_folder(source, out) as local:
    root, categories = _find_categories(local, source)
    names = folder.choose(root, categories, category)
    targets = [prepared.place_of(out, name) for name in names]
    existing = [target for target in targets if target.exists()]
    if existing:
      raise ValueError(
        f"Prepared already: {listing.some(existing)}. Remove them, name other "
        "categories with --category, or choose another --out."
      )
    checking.check([read_source(root, name) for name in names])
    for name in names:
      _write(root, out, name)
  return names


def read_source(root: pathlib.Path, category: str) -> records.Dataset:
  """A category's records from a folder in MVTec LOCO AD's layout, all of it.

  Raises:
    ValueError, FileNotFoundError: it is in another layout, or incomplete.
  """
  place = root / category if (root / category).is_dir() else root
  lacking = [part for part in NEEDED if not (place / part).exists()]
  if lacking:
    raise ValueError(
      f"{place} is not in the layout of MVTec LOCO AD: it lacks "
      f"{listing.some(lacking)} and holds {listing.contents(place)}."
    )
  data = folder.open_category(root, category, layout="loco")
  if not data.test:
    raise ValueError(f"{place}/test holds no images; a prepared data set needs some.")
  return data


def _find_categories(
  root: pathlib.Path, source: str
) -> tuple[pathlib.Path, tuple[str, ...]]:
  """The folder of the categories, the root or the only one within it, and their names.

  Raises:
    ValueError: there are no categories.
  """
  inner = listing.folders(root)
  for place in (root, *(inner if len(inner) == 1 else ())):
    try:
      return place, folder.find_categories(place)
    except FileNotFoundError:
      continue
  raise ValueError(
    f"{source} holds no category of MVTec LOCO AD's layout; expected <category>/train "
    f"and the like, found {listing.contents(root)}."
  )


def _write(root: pathlib.Path, out: pathlib.Path, category: str) -> None:
  config = (
    category if category in CATEGORIES else tfds.core.BuilderConfig(name=category)
  )
  builder = MvtecLoco(config=config, data_dir=out)
  with tempfile.TemporaryDirectory() as unused:  # else tfds makes one that stays
    builder.download_and_prepare(
      file_format="array_record",
      download_config=tfds.download.DownloadConfig(manual_dir=root),
      download_dir=unused,
    )


def main(arguments: Sequence[str] | None = None) -> None:
  """Prepares MVTec LOCO AD, or data in its layout, for config.data.source "tfds"."""
  console.listen()
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument(
    "--source", required=True, help="an archive or a folder, here or in a bucket"
  )
  parser.add_argument("--out", required=True, type=pathlib.Path, help="a folder here")
  parser.add_argument(
    "--category", default="all", help="one name, several with commas, or all"
  )
  flags = parser.parse_args(arguments)
  try:
    names = prepare(flags.source, flags.out, flags.category)
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error
  print(f"{', '.join(names)} prepared in {flags.out}")


if __name__ == "__main__":
  main()
