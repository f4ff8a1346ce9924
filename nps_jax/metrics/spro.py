"""Exact areas under the sPRO, PRO and pixel ROC curves: every score is a threshold.

A pixel is detected at a threshold if its score exceeds it. A channel (one defect's
ground truth) has sPRO = min(pixels detected / saturation, 1), and the curve is the mean
over channels against the false positive rate of the subset's normal pixels (Bergmann et
al., "Beyond Dents and Scratches", IJCV 2022). PRO is the case saturation = area.

Only the `saturation` highest pixels of a channel ever raise its curve, each by 1 /
saturation, along a ramp that starts at the false positives above its score and ends at
those at or above it (linear interpolation between thresholds; without ties, a step). So
the area is the mean over channels of the mean area under these ramps, and
ranking the pixels among the sorted normal scores is all the work there is.
"""

from collections.abc import Sequence
from concurrent import futures
import functools

from jaxtyping import Float, Int
import numpy as np

THREADS = 4  # sorting and searching leave the interpreter's lock
BLOCK = 2**18  # pixels looked up at a time
PIECE = 2**24  # scores of a block in memory


class Group:
  """Pixel scores of some images, added one map at a time; groups form subsets.

  Subsets that share images (the good ones) share the group, which is sorted once.
  Holds one copy of all scores, in the widest precision that the maps came in.
  """

  def __init__(self):
    self.channels: list[np.ndarray] = []  # each channel's `saturation` highest, sorted
    self.defective: list[np.ndarray] = []  # per map, what any channel covers
    self._normal = _Blocks()  # all other pixels
    self._sorted = np.zeros(0, np.float32)  # of them, those sorted so far

  @property
  def normal_count(self) -> int:
    """How many pixels lie outside every channel."""
    return self._normal.size + self._sorted.size

  def add(
    self,
    values: Float[np.ndarray, "h w"],
    channels: Sequence[Int[np.ndarray, " _"]],
    saturation: Int[np.ndarray, " c"],
  ) -> None:
    """Takes in one map; a good image has no channels.

    Args:
      values: anomaly scores, higher is more anomalous; any finite range.
      channels: the pixels that each ground-truth channel covers, as flat indices.
      saturation: how many of a channel's pixels saturate it, 1..its area.

    Raises:
      ValueError: NaN or infinity in the map; a saturation out of range.
    """
    if not np.isfinite(values).all():
      raise ValueError("the anomaly map holds NaN or infinity; all must be finite.")
    areas = np.array([len(channel) for channel in channels], np.int64)
    if np.any(saturation < 1) or np.any(saturation > areas):
      raise ValueError(
        f"saturation is {saturation.tolist()} for channels of {areas.tolist()} pixels; "
        "each must lie between 1 and the channel's area."
      )
    # In the machine's byte order, which TIFF need not use; float16 sorts slowly.
    values = np.asarray(values, np.result_type(values, np.float32))
    for channel, area, count in zip(channels, areas, saturation, strict=True):
      self.channels.append(np.sort(values.flat[channel])[area - count :].copy())
    covered = np.zeros(values.shape, bool)
    for channel in channels:
      covered.flat[channel] = True
    if covered.any():
      self.defective.append(values[covered])
      self._normal.add(values[~covered])
    else:
      self._normal.add(values.ravel())

  def normal(self) -> Float[np.ndarray, " n"]:
    """The scores outside every channel, ascending; sorted when first asked for."""
    if self._normal.size:
      self._normal.add(self._sorted)
      self._sorted = self._normal.take()
      self._sorted.sort()
    return self._sorted


class _Blocks:
  """Scores as they come, in blocks so large that freeing one frees memory at once."""

  def __init__(self):
    self._blocks: list[np.ndarray] = []
    self._used = 0  # of the last block

  @property
  def size(self) -> int:
    return _count(self._blocks[:-1]) + self._used

  def add(self, scores: Float[np.ndarray, " n"]) -> None:
    """Copies the scores in."""
    while scores.size:
      room = self._blocks[-1][self._used :] if self._blocks else scores[:0]
      if not room.size or room.dtype != scores.dtype:
        self._close()
        self._blocks.append(np.empty(PIECE, scores.dtype))
        continue
      count = min(room.size, scores.size)
      room[:count] = scores[:count]
      self._used += count
      scores = scores[count:]

  def take(self) -> Float[np.ndarray, " n"]:
    """All scores in one array, in any order; leaves nothing here."""
    whole, end = np.empty(self.size, np.result_type(*self._blocks)), 0
    self._close()
    while self._blocks:
      block = self._blocks.pop()
      whole[end : end + block.size] = block
      end += block.size
    return whole

  def _close(self) -> None:
    """Leaves no room in the last block."""
    self._blocks[-1:] = [block[: self._used] for block in self._blocks[-1:]]
    self._used = 0


def au_spro(groups: Sequence[Group], limits: Sequence[float]) -> dict[float, float]:
  """The area under sPRO up to each limit, divided by the limit; 0..1.

  It is the mean over the channels' own; as `channel_areas` otherwise.
  """
  areas = channel_areas(groups, limits).mean(axis=0)
  return dict(zip(limits, areas.tolist(), strict=True))


def channel_areas(
  groups: Sequence[Group], limits: Sequence[float]
) -> Float[np.ndarray, "c m"]:
  """Each channel's area up to each limit, divided by the limit; as `channel_curves`."""
  return channel_curves(groups, limits, ())[0]


def channel_curves(
  groups: Sequence[Group], limits: Sequence[float], rates: Sequence[float]
) -> tuple[Float[np.ndarray, "c m"], Float[np.ndarray, "c r"]]:
  """Each channel's normalised area up to each limit, and its sPRO at each rate; 0..1.

  Args:
    groups: together the subset, e.g. good and logical images. Channels come in their
      order, and within a group in the order that they were added.
    limits: largest false positive rates to integrate to, 0 < limit <= 1.
    rates: false positive rates, 0..1. Where the curve jumps, its upper end counts.

  Raises:
    ValueError: a limit out of range; no channel or no normal pixel in the subset.
  """
  if not all(0 < limit <= 1 for limit in limits):
    raise ValueError(f"limits are {tuple(limits)}; each must be above 0 and at most 1.")
  channels = [scores for group in groups for scores in group.channels]
  with futures.ThreadPoolExecutor(THREADS) as pool:
    ranked = list(pool.map(Group.normal, groups))
    normal_count = _count(ranked)
    if not channels or not normal_count:
      raise ValueError(
        f"{len(channels)} channels and {normal_count} normal pixels: sPRO needs some "
        "of both."
      )
    measure = functools.partial(_curve, ranked=ranked, limits=limits, rates=rates)
    areas, heights = zip(*pool.map(measure, channels), strict=True)
    return np.stack(areas), np.stack(heights)


def pixel_ranking(groups: Sequence[Group]) -> tuple[float, float]:
  """AUROC and average precision of pixels in any channel against normal ones; 0..1.

  In the AUROC ties count half; AP is the mean, over the defective pixels, of the
  precision among pixels that score at least as high.

  Raises:
    ValueError: no pixel of one of the two sorts.
  """
  defective = [scores for group in groups for scores in group.defective]
  with futures.ThreadPoolExecutor(THREADS) as pool:
    ranked = list(pool.map(Group.normal, groups))
    normal_count, defective_count = _count(ranked), _count(defective)
    if not normal_count or not defective_count:
      raise ValueError(
        f"{defective_count} defective and {normal_count} normal pixels: AUROC needs "
        "some of both."
      )
    # Neighbouring scores have neighbouring places, so in order is twice as fast.
    scores = np.concatenate(defective)
    scores.sort()
    blocks = np.array_split(scores, -(-defective_count // BLOCK))
    count = functools.partial(_misordered_and_precision, scores=scores, ranked=ranked)
    misordered, precision = map(sum, zip(*pool.map(count, blocks), strict=True))
  pairs = 2 * normal_count * defective_count
  return (pairs - misordered) / pairs, precision / defective_count


def _count(arrays: Sequence[np.ndarray]) -> int:
  return sum(array.size for array in arrays)


def _curve(
  scores: Float[np.ndarray, " n"],
  ranked: Sequence[np.ndarray],
  limits: Sequence[float],
  rates: Sequence[float],
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " r"]]:
  """One channel's normalised area up to each limit, and its sPRO at each rate."""
  above, reached = _false_positives(scores, ranked)
  normal_count = _count(ranked)
  areas = [_ramp_area(above, reached, limit * normal_count) for limit in limits]
  heights = [_ramp_height(above, reached, rate * normal_count) for rate in rates]
  return np.array(areas), np.array(heights)


def _misordered_and_precision(
  block: Float[np.ndarray, " n"],
  scores: Float[np.ndarray, " m"],
  ranked: Sequence[np.ndarray],
) -> tuple[int, float]:
  """For defective pixels in order, a block of all `scores`: what both measures sum.

  Pairs (defective, normal) in the wrong order, counted twice, ties once; and each
  pixel's precision.
  """
  above, reached = _false_positives(block, ranked)
  true = scores.size - np.searchsorted(scores, block, side="left")
  return int(above.sum() + reached.sum()), float(np.sum(true / (true + reached)))


def _false_positives(
  scores: Float[np.ndarray, " n"], ranked: Sequence[np.ndarray]
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
  """How many normal pixels lie above each score, and how many at or above it."""
  above, reached = np.zeros((2, scores.size), np.int64)
  for normal in ranked:
    if not normal.size:
      continue
    first = np.searchsorted(normal, scores, side="left")
    reached += normal.size - first
    tied = normal[np.minimum(first, normal.size - 1)] == scores
    first[tied] = np.searchsorted(normal, scores[tied], side="right")
    above += normal.size - first
  return above, reached


def _ramp_area(
  start: Int[np.ndarray, " n"], end: Int[np.ndarray, " n"], limit: float
) -> float:
  """Mean height over 0..limit of curves that go from 0 at start to 1 at end."""
  low, high = np.minimum(start, limit), np.minimum(end, limit)
  sloped = np.square(high - low) / (2 * np.maximum(end - start, 1))
  return float(np.mean((sloped + limit - high) / limit))


def _ramp_height(
  start: Int[np.ndarray, " n"], end: Int[np.ndarray, " n"], at: float
) -> float:
  """Mean height of the same curves at one place."""
  climbed = (at - start) / np.maximum(end - start, 1)
  return float(np.mean(np.where(at >= end, 1, np.clip(climbed, 0, 1))))
