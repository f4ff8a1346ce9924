"""How much each source may say: learned on edits of normal images (ours).

Validation images hold no anomalies, so nothing in them tells which map would see one.
Edited copies of them do. In the fused map, what tells edited places from normal ones
gets weight, what does not gets none, and where the evidence is thin the weights stay
alike. What makes the fused map find fewer of the edits leaves it.
"""

from collections.abc import Collection, Mapping

from jaxtyping import Bool, Float
import numpy as np
from scipy import optimize
from scipy import special

from nps_jax.metrics import spro

CLEAR = 5.0  # evidence, in reaches of normal cells, above which more says no more
RIDGE = 0.1  # weight of the squared weights beside the mean logistic loss
CELLS = 20  # of each edit, at most: a large edit says no more than a small one
NORMAL = 20_000  # cells of unedited images, at most
SEED = 0  # of which cells are drawn
LIMIT = 0.05  # false positive rate up to which the overlap with edits is measured

Maps = Mapping[str, Float[np.ndarray, "_ y x"]]  # scaled: 0.1 is a normal cell's reach


def of_maps(
  normal: Maps,
  edited: Maps,
  masks: Bool[np.ndarray, "e y x"],
  spared: Collection[str] = (),
) -> dict[str, float]:
  """Each source's weight, 0 or more, 1 in the mean.

  From a logistic regression of "edited" on what the sources say of a cell; then sources
  leave, one after the other, for as long as the fused map finds the edits no worse
  without: the regression does not see how rare and how high a source's false peaks are.
  All 1 where nothing was edited, or no source sees what was.

  Args:
    normal: of unedited images.
    edited: of edited copies of them.
    masks: which of the latter's cells the edit has changed.
    spared: sources that stay, for what edits do not show: their weight alone decides.
  """
  weights = _regressed(normal, edited, masks) if masks.any() else {}
  if not any(weights.values()):
    return dict.fromkeys(normal, 1.0)
  best = overlap(weights, normal, edited, masks)
  while len(weights) > 1:
    trials = []
    for source in set(weights) - set(spared):
      rest = {name: normal[name] for name in weights if name != source}
      without = _regressed(rest, edited, masks)
      if any(without.values()):
        trials.append((overlap(without, normal, edited, masks), source, without))
    value, _, without = max(trials, default=(-1.0, "", {}), key=lambda trial: trial[:2])
    if value < best:
      break
    best, weights = value, without
  mean = sum(weights.values()) / len(normal)
  return {source: weights.get(source, 0.0) / mean for source in normal}


def overlap(
  weights: Mapping[str, float],
  normal: Maps,
  edited: Maps,
  masks: Bool[np.ndarray, "e y x"],
) -> float:
  """AU-PRO up to LIMIT of the weighted sum of the maps, 0..1; each edit is a region."""
  group = spro.Group()
  fused, plain = (
    sum(weight * np.asarray(maps[name]) for name, weight in weights.items())
    for maps in (edited, normal)
  )
  for values, mask in zip(fused, masks, strict=True):
    if mask.any():
      pixels = np.flatnonzero(mask)
      group.add(values, (pixels,), np.array([len(pixels)]))
  for values in plain:
    group.add(values, (), np.zeros(0, np.int64))
  return spro.au_spro([group], (LIMIT,))[LIMIT]


def _regressed(
  normal: Maps, edited: Maps, masks: Bool[np.ndarray, "e y x"]
) -> dict[str, float]:
  """The slopes, from edited cells and unedited images' ones.

  Each edit counts alike, and both sides do.
  """
  rng = np.random.default_rng(SEED)
  touched = [index for index, mask in enumerate(masks) if mask.any()]
  rows, sides = [], []
  for index in touched:
    places = np.argwhere(masks[index])
    y, x = rng.permutation(places)[:CELLS].T
    rows.append(np.stack([edited[source][index][y, x] for source in normal], axis=1))
    sides.append(np.full(len(y), 1 / len(y) / len(touched)))
  plain = np.stack([maps.ravel() for maps in normal.values()], axis=1)
  plain = rng.permutation(plain)[:NORMAL]
  evidence = np.clip(10 * np.concatenate([*rows, plain]), 0, CLEAR)
  signs = np.repeat([1.0, -1.0], [len(evidence) - len(plain), len(plain)])
  shares = np.concatenate([*sides, np.full(len(plain), 1 / len(plain))])
  slopes = logistic(evidence, signs, shares)
  return dict(zip(normal, slopes.tolist(), strict=True))


def logistic(
  evidence: Float[np.ndarray, "n k"],
  signs: Float[np.ndarray, " n"],
  shares: Float[np.ndarray, " n"],
) -> Float[np.ndarray, " k"]:
  """The slopes, none negative, of the least weighted logistic loss with a ridge.

  Args:
    signs: 1 for what is to be above the threshold, -1 for what is to be below.
    shares: each row's weight in the loss.
  """

  def loss(point: Float[np.ndarray, " j"]):
    offset, slopes = point[0], point[1:]
    margin = signs * (evidence @ slopes + offset)
    value = shares @ np.logaddexp(0, -margin) + RIDGE * slopes @ slopes
    pull = -shares * signs * special.expit(-margin)
    return value, np.concatenate([[pull.sum()], evidence.T @ pull + 2 * RIDGE * slopes])

  count = evidence.shape[1]
  bounds = [(None, None)] + [(0, None)] * count
  start = np.zeros(1 + count)
  return optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x[
    1:
  ]
