"""Where a run's data sets come from: a folder tree, or a prepared tfds data set."""

from collections.abc import Sequence

import ml_collections

from nps_jax import config as settings
from nps_jax import geometry
from nps_jax.data import depth
from nps_jax.data import folder
from nps_jax.data import records
from nps_jax.data import regions
from nps_jax.data import shapes

SPLITS = ("train", "validation", "test")


def open_all(
  config: ml_collections.ConfigDict, seed: int
) -> tuple[records.Dataset, ...]:
  """The data sets of all categories that config.data names, in its order.

  Grey of 16-bit files is read by config.data.bits or, where that is 0, by the bits that
  the normal images have.

  Raises:
    ValueError, FileNotFoundError: as the source's own `open_all` does.
  """
  if config.source == "tfds":
    from nps_jax.data import prepared  # noqa: PLC0415 - tfds is slow to import

    datasets = prepared.open_all(config)
  else:
    datasets = folder.open_all(config, seed)
  learned = [record for data in datasets for record in (*data.train, *data.validation)]
  bits = config.bits or depth.find(learned)
  datasets = tuple(depth.using(data, bits) for data in datasets)
  if not config.region:
    return datasets
  return tuple(
    data._replace(
      **{split: regions.attach(getattr(data, split), config.region) for split in SPLITS}
    )
    for data in datasets
  )


def renamed(
  datasets: Sequence[records.Dataset], names: Sequence[str]
) -> tuple[records.Dataset, ...]:
  """The data sets under the names that a run knows them by.

  Only where both are one: then a folder that was renamed or mounted elsewhere is still
  the same category, if its images are.
  """
  if len(datasets) != 1 or len(names) != 1 or datasets[0].category == names[0]:
    return tuple(datasets)
  (data,), (name,) = datasets, names
  splits = {
    split: tuple(
      record._replace(category=name, id=name + record.id.removeprefix(data.category))
      for record in getattr(data, split)
    )
    for split in SPLITS
  }
  return (data._replace(category=name, **splits),)


def settle(
  config: ml_collections.ConfigDict, datasets: Sequence[records.Dataset]
) -> None:
  """Puts into the config what the data decide, where it does not say so itself."""
  config.data.bits = datasets[0].train[0].bits
  if config.image_size == settings.AUTO:
    images = [record for data in datasets for record in data.train]
    multiple = geometry.encoder(config.encoder.name).multiple
    config.image_size = shapes.find(images, config.image_pixels, multiple)
