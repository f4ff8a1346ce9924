"""report.html: what was measured, the curves, and a gallery with a threshold to move.

One file for a category, which asks nothing of any network; an index for several.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any, NamedTuple

import jinja2
import numpy as np

from nps_jax.data import records
from nps_jax.metrics import category as measures
from nps_jax.report import figures
from nps_jax.report import gallery
from nps_jax.report import plots
from nps_jax.report import table
from nps_jax.runs import files

NAME = "report.html"
ROOM = 24 * 2**20  # bytes that the pictures of a page may take


class Category(NamedTuple):
  """What a page shows of one category."""

  result: Mapping  # as nps_jax.metrics.category.measure has it
  shots: Sequence[gallery.Shot]
  facts: Mapping[str, str]  # what was measured, by name
  scaled: bool  # whether 1 is the threshold of scores and of maps


def render(template: str, **values: object) -> str:
  """The page that a file of templates/ makes of the values; all text is escaped."""
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("nps_jax.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
  )
  return environment.get_template(template).render(**values)


def paths(path: pathlib.Path, names: Sequence[str]) -> list[pathlib.Path]:
  """Where `write` puts the pages of these categories; with several, an index first."""
  if len(names) < 2:
    return [path]
  return [path, *(path.with_name(f"{path.stem}_{name}.html") for name in names)]


def write(path: pathlib.Path, categories: Sequence[Category]) -> None:
  """Writes a page for each category and, of several, an index of them at `path`."""
  names = [each.result["category"] for each in categories]
  index, *pages = paths(path, names)
  if not pages:
    files.write_text(index, "".join(of_category(each) for each in categories))
    return
  for page, each in zip(pages, categories, strict=True):
    files.write_text(page, of_category(each, home=index.name))
  results = [each.result for each in categories]
  text = render(
    "index.html",
    title="Anomaly detection: results",
    subtitle=None,
    facts=categories[0].facts,
    links=[(name, page.name) for name, page in zip(names, pages, strict=True)],
    intervals=_intervals(results),
    results=_grid(table.grid_by_category(results)),
  )
  files.write_text(index, text)


def of_category(category: Category, home: str | None = None) -> str:
  """The page of one category; `home` is the file of the index, if there is one."""
  result, shots = category.result, category.shots
  limit = 1.0 if category.scaled else _highest_good(shots)
  drawn, left_out = _cards(category, limit)
  kinds = [" + ".join(each.kinds) for each in shots]
  scores = [each.row["score"] for each in shots]
  return render(
    "category.html",
    title=f"{result['category']}: anomaly detection",
    subtitle=f"{result['n_test']} test images",
    home=home,
    facts=category.facts,
    intervals=_intervals([result]),
    results=_grid(table.grid_by_category([result])),
    kinds=_grid(table.grid_by_kind([result])),
    plots=_plots(result, shots),
    bars=plots.histogram(scores, kinds, limit),
    limit=limit,
    scale=SCALED if category.scaled else UNSCALED,
    names=sorted({kind for each in shots for kind in each.kinds}),
    scores=[[each.row["score"], each.good] for each in shots],
    heat=HEAT if category.scaled else "",
    outlined=any(each.truth is not None for each in shots),
    shots=drawn,
    left_out=left_out,
  )


SCALED = (
  "A score of 1 is the threshold that 1 normal image in 100 is to be expected above, "
  "from normal images that were held out; it was not chosen on these test images. "
  "Moving the line shows what another one would have made of them."
)
UNSCALED = (
  "The line begins at the highest score of a good image. These are test images: a "
  "threshold for use must come from other normal images."
)
HEAT = (
  f" (colour begins at {figures.FAINT:g}, which 1 normal image in 100 reaches "
  f"anywhere, and is strongest at {figures.FULL:g})"
)


def _highest_good(shots: Sequence[gallery.Shot]) -> float:
  scores = [each.row["score"] for each in shots if each.good]
  return max(scores or [each.row["score"] for each in shots])


def _cards(category: Category, limit: float) -> tuple[list[dict[str, Any]], int]:
  """The gallery, worst mistakes first, and how many images it has no room for."""
  shots, room = gallery.worst_first(category.shots, limit), ROOM
  scale = (figures.FAINT, figures.FULL)
  if not category.scaled:
    scale = gallery.colours(shots)
  cards = []
  for shot in shots:
    image, heat = gallery.pictures(shot, *scale)
    room -= len(image) + len(heat)
    if room < 0:
      break
    cards.append(
      {
        "id": shot.row["id"],
        "score": shot.row["score"],
        "says": f"{shot.row['score']:.2f}",
        "good": shot.good,
        "kinds": shot.kinds,
        "why": _why(shot.row),
        "image": image,
        "heat": heat,
        "width": shot.image.shape[1],
        "height": shot.image.shape[0],
      }
    )
  return cards, len(shots) - len(cards)


def _why(row: Mapping[str, Any]) -> str:
  """The reason of a score, in words; none where the row has none."""
  if "source" not in row:
    return ""
  what = f", {row['what']}" if row["what"] else ""
  where = "in the whole image" if row["side"] == "global" else f"at {row['where']}"
  return f"{row['source']} {where}{what}"


def _plots(result: Mapping, shots: Sequence[gallery.Shot]) -> list[dict[str, Any]]:
  good = np.array([each.row["score"] for each in shots if each.good])
  bad: dict[str, list[float]] = {}
  for each in shots:
    if not each.good:
      kind = each.row["kind"]
      named = kind in (records.LOGICAL, records.STRUCTURAL)
      bad.setdefault(kind if named else "all anomalous", []).append(each.row["score"])
  drawn = []
  if good.size and bad:
    sets = {name.replace("_", " "): np.array(bad[name]) for name in sorted(bad)}
    drawn.append(plots.roc(good, sets))
  if result["region_curves"]:
    drawn.append(plots.regions(result["region_curves"], measures.RATES))
  return drawn


def _intervals(results: Sequence[Mapping]) -> str:
  told = any(result["image_auroc_95"] for result in results)
  return "; 95 % intervals of the bootstrap in brackets" if told else ""


def _grid(parts: tuple[Sequence[str], Sequence[Sequence[str]]]) -> dict[str, object]:
  header, rows = parts
  return {"header": header, "rows": rows}
