"""Where a run's data sets come from: a folder tree, or a prepared tfds data set."""

import ml_collections

from nps_jax.data import folder
from nps_jax.data import records


def open_all(
  config: ml_collections.ConfigDict, seed: int
) -> tuple[records.Dataset, ...]:
  """The data sets of all categories that config.data names, in its order.

  Raises:
    ValueError, FileNotFoundError: as the source's own `open_all` does.
  """
  if config.source == "tfds":
    from nps_jax.data import prepared  # noqa: PLC0415 - tfds is slow to import

    return prepared.open_all(config)
  return folder.open_all(config, seed)
