"""The server's routes: from an image that comes to what is said of it."""

import asyncio
import base64
from collections.abc import AsyncIterator
from concurrent import futures
import contextlib
import functools
import json
import pathlib
import time
from typing import Any

from starlette import applications
from starlette import exceptions
from starlette import requests
from starlette import responses
from starlette import routing

from nps_jax import inference
from nps_jax import predicting
from nps_jax import ready
from nps_jax import scoring
from nps_jax.data import decoding
from nps_jax.data import encoded
from nps_jax.report import figures
from nps_jax.report import page
from nps_jax.serving import admission
from nps_jax.serving import batching
from nps_jax.serving import monitoring

DESCRIPTION = pathlib.Path(page.__file__).parent / "templates" / "openapi.json"
ALLOWED = {"": False, "0": False, "false": False, "1": True, "true": True}
UNTOLD = ("id", "file")  # columns of scores.csv that a sent image does not have
HEADERS = {
  "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src data:; "
  "script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'",
  "X-Content-Type-Options": "nosniff",
}  # of pages


class Service:
  """Answers requests with one run; a Starlette application is made of its methods."""

  def __init__(
    self,
    scorer: ready.Scorer,
    limit: float,
    limits: admission.Limits,
    token: str | None = None,
  ):
    """Compiles nothing: the scorer is to be warm.

    Args:
      limit: the score above which an image is anomalous.
      token: what clients must show to /score and /metrics; None: nothing.
    """
    self.scorer, self.limit, self.limits, self.token = scorer, limit, limits, token
    config = scorer.run.about.config
    self.normal = scorer.run.calibrations[scorer.category].normal[scoring.SCORE]
    self.monitor = monitoring.Monitor(self.normal)
    self.queue = batching.Queue(self._score_batch, scorer.most)
    self.threads = futures.ThreadPoolExecutor(max(1, config.data.threads), "decode")
    self.reading = 0  # bodies that are being read
    self.inside = 0  # images that have come and are not answered yet

  def _score_batch(self, batch: list[admission.Sent]) -> list[inference.Scored]:
    return self.scorer.score(
      [sent.record for sent in batch], [sent.pixels for sent in batch]
    )

  @contextlib.asynccontextmanager
  async def lifespan(self, app: applications.Starlette) -> AsyncIterator[None]:
    """Scores while the server runs; what waits at its end is scored, too."""
    work = asyncio.create_task(self.queue.work())
    yield
    await self.queue.close()
    await work
    self.threads.shutdown()

  async def score(self, request: requests.Request) -> responses.Response:
    """POST /score: what is said of the image in the body."""
    try:
      admission.check_token(request, self.token)
      wanted = {name: _flag(request, name) for name in ("map", "overlay")}
      body = await self._body(request)
      answer = responses.JSONResponse(await self._answer(body, wanted))
    except admission.Refused as error:
      answer = refusal(error)
    except Exception:
      self.monitor.add_request(500)
      raise
    self.monitor.add_request(answer.status_code)
    return answer

  async def _body(self, request: requests.Request) -> bytes:
    if self.reading >= self.limits.images:
      raise self._full()
    self.reading += 1
    try:
      return await admission.read_body(request, self.limits)
    finally:
      self.reading -= 1

  async def _answer(self, body: bytes, wanted: dict[str, bool]) -> dict[str, Any]:
    if self.inside >= self.limits.images:
      raise self._full()
    self.inside += 1
    began = time.perf_counter()
    run = functools.partial(asyncio.get_running_loop().run_in_executor, self.threads)
    try:
      sent = await run(admission.read_image, body, self.scorer, self.limits)
      scored = await self.queue.ask(sent)
      answer = await run(self._tell, sent, scored, wanted)
    finally:
      self.inside -= 1
    seconds = time.perf_counter() - began
    self.monitor.add_image(answer["score"], answer["verdict"], seconds)
    return answer

  def _full(self) -> admission.Refused:
    return admission.Refused(
      429,
      f"{self.limits.images} images are waiting already; send this one again later.",
      Retry_After=str(self.queue.patience()),
    )

  def _tell(
    self, sent: admission.Sent, scored: inference.Scored, wanted: dict[str, bool]
  ) -> dict[str, Any]:
    """The image's line of scores.csv, by column; map and overlay where asked for."""
    full = inference.at_size(scored.map, sent.size)
    row = predicting.row(scored, full, self.normal, self.limit)
    told = {name: value for name, value in row.items() if name not in UNTOLD}
    told["where"] = list(scored.reason.pixels(full.shape))
    told["threshold"] = self.limit
    told["size"] = list(sent.size)
    if wanted["map"]:
      told["map"] = _text(predicting.tiff(full))
    if wanted["overlay"]:
      heat = figures.overlay(decoding.decode(sent.record), full)
      told["overlay"] = _text(encoded.png(heat))
    return told

  async def health(self, request: requests.Request) -> responses.Response:
    """GET /health: that images are taken, and by which run."""
    run = self.scorer.run
    about = {"status": "ok", "run": run.folder.name, "step": run.step}
    about |= {"category": self.scorer.category, "threshold": self.limit}
    return responses.JSONResponse(about)

  async def metrics(self, request: requests.Request) -> responses.Response:
    """GET /metrics: what Prometheus reads."""
    try:
      admission.check_token(request, self.token)
    except admission.Refused as error:
      return refusal(error)
    text = self.monitor.text(
      waiting=len(self.queue),
      batches=self.queue.batches,
      computing=self.queue.seconds,
    )
    return responses.PlainTextResponse(text, media_type="text/plain; version=0.0.4")

  async def home(self, request: requests.Request) -> responses.Response:
    """GET /: the page to drop an image on."""
    run = self.scorer.run
    text = page.render(
      "serve.html",
      title=f"Is it normal? {self.scorer.category}",
      subtitle=f"{run.folder.name}, step {run.step}; anomalous above {self.limit:.2f}",
      token=self.token is not None,
    )
    return responses.HTMLResponse(text, headers=HEADERS)

  async def described(self, request: requests.Request) -> responses.Response:
    """GET /openapi.json."""
    return responses.JSONResponse(_description())

  async def docs(self, request: requests.Request) -> responses.Response:
    """GET /docs: the description to read, which asks nothing of any network."""
    text = page.render(
      "docs.html", title="Answers of this server", subtitle="", about=_description()
    )
    return responses.HTMLResponse(text, headers=HEADERS)

  def application(self) -> applications.Starlette:
    """What a server runs."""
    route = routing.Route
    return applications.Starlette(
      routes=[
        route("/score", self.score, methods=["POST"]),
        route("/health", self.health),
        route("/metrics", self.metrics),
        route("/", self.home),
        route("/openapi.json", self.described),
        route("/docs", self.docs),
      ],
      exception_handlers={exceptions.HTTPException: _http_error, Exception: _fault},
      lifespan=self.lifespan,
    )


def refusal(error: admission.Refused) -> responses.Response:
  """What a request gets in place of a score."""
  return responses.JSONResponse(
    {"error": error.message}, error.status, headers=error.headers
  )


async def _http_error(
  request: requests.Request, error: exceptions.HTTPException
) -> responses.Response:
  path = request.url.path
  message = f"{request.method} {path[:80]}: {error.detail}. See /docs."
  return responses.JSONResponse(
    {"error": message}, error.status_code, headers=error.headers
  )


async def _fault(request: requests.Request, error: Exception) -> responses.Response:
  message = "The server failed; its log says why."
  return responses.JSONResponse({"error": message}, 500)


def _flag(request: requests.Request, name: str) -> bool:
  text = request.query_params.get(name, "")
  if text not in ALLOWED:
    message = f"{name} is {text[:20]!r}; expected 1 or 0."
    raise admission.Refused(400, message, Connection="close")
  return ALLOWED[text]


def _text(content: bytes) -> str:
  return base64.b64encode(content).decode("ascii")


def _description() -> dict[str, Any]:
  return json.loads(DESCRIPTION.read_text(encoding="utf-8"))
