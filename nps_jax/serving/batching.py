"""A queue that scores what waits in it together."""

import asyncio
import collections
from collections.abc import Callable, Sequence
from concurrent import futures
import time

from nps_jax import inference
from nps_jax.serving import admission

LINGER = 0.003  # seconds that an image waits for others when nothing is being scored

Score = Callable[[Sequence[admission.Sent]], list[inference.Scored]]


class Queue:
  """Scores images in the order in which they came, as many at once as there are.

  One thread computes; all else happens in the event loop that runs `work`.
  """

  def __init__(self, score: Score, most: int):
    """Takes up nothing before `work` runs.

    Args:
      score: of at most `most` images, in order.
    """
    self._score, self._most = score, most
    self._waiting: collections.deque[tuple[admission.Sent, asyncio.Future]] = (
      collections.deque()
    )
    self._changed = asyncio.Condition()
    self._closed = False
    self.batches, self.seconds = 0, 0.0  # so far

  def __len__(self) -> int:
    """How many images wait."""
    return len(self._waiting)

  async def ask(self, sent: admission.Sent) -> inference.Scored:
    """The image's score, once its turn has come; raises what scoring it raised."""
    answer = asyncio.get_running_loop().create_future()
    async with self._changed:
      self._waiting.append((sent, answer))
      self._changed.notify()
    return await answer

  async def close(self) -> None:
    """Makes `work` end as soon as nothing waits."""
    async with self._changed:
      self._closed = True
      self._changed.notify()

  async def work(self) -> None:
    """Scores what comes, until the queue is closed."""
    loop = asyncio.get_running_loop()
    with futures.ThreadPoolExecutor(1, "score") as thread:
      while True:
        async with self._changed:
          await self._changed.wait_for(lambda: self._waiting or self._closed)
        if not self._waiting:
          return
        if len(self._waiting) < self._most:
          await asyncio.sleep(LINGER)
        count = min(self._most, len(self._waiting))
        batch = [self._waiting.popleft() for _ in range(count)]
        began = time.perf_counter()
        try:
          results = await loop.run_in_executor(
            thread, self._score, [sent for sent, _ in batch]
          )
        except Exception as error:  # of these images alone; others still come
          results = [error] * count
        self.batches += 1
        self.seconds += time.perf_counter() - began
        for (_, answer), result in zip(batch, results, strict=True):
          if answer.done():  # nobody waits for it any more
            continue
          if isinstance(result, Exception):
            answer.set_exception(result)
          else:
            answer.set_result(result)

  def patience(self) -> int:
    """Seconds after which what waits now will have been scored, about; at least 1."""
    each = self.seconds / max(1, self.batches)
    return 1 + int(each * len(self._waiting) / self._most)
