"""From judged test images to results, and to the files beside them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import pathlib
from typing import NamedTuple

from jaxtyping import Float
import numpy as np

from nps_jax.data import records
from nps_jax.metrics import category as measures
from nps_jax.report import gallery
from nps_jax.report import lines
from nps_jax.report import page
from nps_jax.report import table
from nps_jax.runs import files

Judged = tuple[records.Record, Float[np.ndarray, "h w"], lines.Row]


class Options(NamedTuple):
  """How to measure: see `nps_jax.metrics.category.measure`."""

  limits: Sequence[float] | None = None
  bootstrap: int = 1000
  seed: int = 0


def measure(
  data: records.Dataset,
  judged: Iterable[Judged],
  options: Options,
  facts: Mapping[str, str],
  scaled: bool,
) -> page.Category:
  """A category's results, and the small pictures of its test images.

  Args:
    judged: each test record with its map at the image's own size, and its line of
      scores.csv, whose `score` is the image's.
    facts: what was measured, by name, as the page says it.
    scaled: whether 1 is the threshold of scores and maps.

  Raises:
    ValueError: what `nps_jax.metrics.category.measure` raises.
  """
  shots = []

  def watched() -> Iterator[tuple[records.Record, np.ndarray, float]]:
    for record, full, row in judged:
      yield record, full, row["score"]
      # Only now: what is wrong with the record, the map or the masks has been told.
      place = {"category": data.category, "kind": record.kind}
      shots.append(gallery.shot(record, full, place | row, data))

  result = measures.measure(data, watched(), *options)
  return page.Category(result, shots, facts, scaled)


def publish(measured: Sequence[page.Category], path: pathlib.Path) -> None:
  """Writes the results at `path`, and beside them tables, scores and a page."""
  lines.write(scores_path(path), [shot.row for each in measured for shot in each.shots])
  page.write(page_path(path), measured)
  table.publish([each.result for each in measured], path)
  print(f"The images' scores: {scores_path(path)}. To look at: {page_path(path)}")


def scores_path(path: pathlib.Path) -> pathlib.Path:
  """Where the images' scores lie: scores.csv in a run, else NAME_scores.csv."""
  own = path.name == files.RESULTS
  return path.with_name(lines.NAME if own else f"{path.stem}_scores.csv")


def page_path(path: pathlib.Path) -> pathlib.Path:
  """Where the page lies: report.html in a run, else NAME.html."""
  own = path.name == files.RESULTS
  return path.with_name(page.NAME) if own else path.with_suffix(".html")


def check_absent(path: pathlib.Path, categories: Sequence[str] = ()) -> None:
  """Makes sure that `publish` would replace nothing of these categories.

  Raises:
    ValueError: some of its files exist; names them.
  """
  pages = page.paths(page_path(path), categories)
  table.check_absent(path, scores_path(path), *pages)


def withdraw(path: pathlib.Path, categories: Sequence[str]) -> None:
  """Removes what `publish` wrote of these categories, the results at `path` first."""
  pages = page.paths(page_path(path), categories)
  for written in (*table.paths(path), scores_path(path), *pages):
    written.unlink(missing_ok=True)
