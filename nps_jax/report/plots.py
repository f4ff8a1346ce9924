"""Curves and histograms as the points that a page's SVG draws."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
import numpy as np

WIDE, HIGH = 300, 240  # units of a plot of curves
BINS, LENGTH, TALL = 50, 1000, 220  # of a histogram, and its units
COLOURS = (  # the first of them told apart also by the colour-blind (Okabe and Ito)
  *("#0072b2", "#d55e00", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a6d3b"),
  *("#7a4fbf", "#f0e442", "#7f7f7f", "#a50f3c", "#2b5d34"),
)
GREEN = "#009e73"  # of good images


def colour(at: int) -> str:
  """The colour of the series with this number; they repeat."""
  return COLOURS[at % len(COLOURS)]


def roc(
  good: Float[np.ndarray, " n"], bad: Mapping[str, Float[np.ndarray, " _"]]
) -> dict[str, Any]:
  """ROC curves of the good images against each of several sets of anomalous ones."""
  series = []
  for name, scores in bad.items():
    cuts = np.unique(np.concatenate([good, scores]))[::-1]
    false = [0.0, *(np.mean(good[:, None] >= cuts, axis=0)).tolist()]
    true = [0.0, *(np.mean(scores[:, None] >= cuts, axis=0)).tolist()]
    series.append((name, false, true))
  return _curves(
    "ROC of the images",
    ("good images called anomalous", "anomalous images found"),
    series,
    1.0,
  )


def regions(curves: Mapping[str, Sequence[float]], rates: Sequence[float]) -> dict:
  """The curves of sPRO or PRO at these rates of false positive pixels."""
  measure = "PRO" if "pro" in curves else "sPRO"
  series = [(name, list(rates), heights) for name, heights in curves.items()]
  return _curves(
    f"{measure} of the regions",
    ("normal pixels called anomalous", f"mean {measure}"),
    series,
    max(rates),
  )


def _curves(
  title: str,
  axes: tuple[str, str],
  series: Sequence[tuple[str, Sequence[float], Sequence[float]]],
  reach: float,
) -> dict[str, Any]:
  """A plot of curves over 0..reach and 0..1."""
  ticks = np.linspace(0, 1, 6)
  return {
    "title": title,
    "says": ", ".join(name for name, _, _ in series),
    "x": axes[0],
    "y": axes[1],
    "marked": reach == 1,
    "across": [(WIDE * tick, f"{reach * tick:.2g}") for tick in ticks],
    "up": [(HIGH * (1 - tick), f"{tick:.1f}") for tick in ticks],
    "lines": [
      {
        "name": name,
        "colour": colour(at),
        "points": " ".join(
          f"{WIDE * x / reach:.1f},{HIGH * (1 - y):.1f}"
          for x, y in zip(xs, ys, strict=True)
        ),
      }
      for at, (name, xs, ys) in enumerate(series)
    ],
  }


def histogram(
  scores: Sequence[float], kinds: Sequence[str], limit: float
) -> dict[str, Any]:
  """Stacked bars of the scores by kind, and the span that a slider has over them.

  The span ends where a tenth of the scores are higher, if good ones and the threshold
  are not; the last bar has these too.
  """
  values, labels = np.asarray(scores, np.float64), np.asarray(kinds)
  good = values[labels == "good"]
  low = min(float(values.min()), limit)
  usual = [float(np.quantile(values, 0.9)), 1.2 * limit - 0.2 * low]
  high = max(*usual, *([float(good.max())] if good.size else []))
  high = max(high, np.nextafter(low, np.inf))
  edges = np.linspace(low, high, BINS + 1)
  place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, BINS - 1)
  names = sorted(set(kinds), key=lambda name: (name != "good", name))
  series = [
    {
      "name": name,
      "colour": GREEN if name == "good" else colour(at - ("good" in names)),
    }
    for at, name in enumerate(names)
  ]
  counts = [np.bincount(place[labels == name], minlength=BINS) for name in names]
  tallest, bars = max(int(np.sum(counts, axis=0).max()), 1), []
  for bin_ in range(BINS):
    top = TALL
    for one, count in zip(series, counts, strict=True):
      height = TALL * int(count[bin_]) / tallest
      top -= height
      if height:
        above = "more" if bin_ == BINS - 1 else f"{edges[bin_ + 1]:.2f}"
        bars.append(
          {
            "x": round(LENGTH * bin_ / BINS + 1, 1),
            "y": round(top, 2),
            "width": LENGTH / BINS - 2,
            "height": round(height, 2),
            "colour": one["colour"],
            "says": f"{one['name']}: {count[bin_]} from {edges[bin_]:.2f} to {above}",
          }
        )
  ticks = np.linspace(low, high, 6)
  labels = [f"{tick:.2f}" for tick in ticks[:-1]] + [f"{high:.2f} and more"]
  return {
    "bars": bars,
    "series": series,
    "across": labels,
    "low": low,
    "high": high,
    "step": (high - low) / 1000,
  }
