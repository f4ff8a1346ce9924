"""The server: its answers are those of a prediction, whatever else it is sent."""

import asyncio
import base64
from concurrent import futures
import contextlib
import http.client
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import types
import zlib

import numpy as np
from PIL import Image
import pytest
from scipy import stats
import tifffile

from nps_jax import inference
from nps_jax import predicting
from nps_jax import ready
from nps_jax import scoring
from nps_jax import serve
from nps_jax.data import decoding
from nps_jax.data import unlabelled
from nps_jax.report import figures
from nps_jax.serving import admission
from nps_jax.serving import app
from nps_jax.serving import batching
from nps_jax.serving import connections
from nps_jax.serving import monitoring

CLIENTS = 8


@pytest.fixture(scope="module")
def scorer(run):
  made = ready.Scorer(run, "bottle")
  made.warm()
  return made


@pytest.fixture(scope="module")
def images(root):
  return unlabelled.images([str(root / "bottle" / "test")])


@pytest.fixture(scope="module")
def png(images):
  return images[0].image.read_bytes()


@contextlib.contextmanager
def serving(scorer, limits=None, token=None, protocol=connections.Protocol, limit=1.0):
  """A server on a free port; at the end it is asked to stop."""
  service = app.Service(scorer, limit, limits or admission.Limits(), token)
  with connections.listen("127.0.0.1", 0) as own:
    server = connections.server(service.application(), protocol)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [own]})
    thread.start()
    while not server.started:
      time.sleep(0.01)
    port = own.getsockname()[1]
    try:
      yield types.SimpleNamespace(service=service, port=port, server=server)
    finally:
      server.should_exit = True
      thread.join()


@pytest.fixture(scope="module")
def port(scorer):
  with serving(scorer, admission.Limits(bytes=10**6, pixels=300 * 300)) as there:
    yield there.port


def ask(port, body=None, path="/score", headers=None, method="POST"):
  """The answer's status, headers and content, from JSON if it is that."""
  connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
  with contextlib.closing(connection):
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    content = answer.read()
  if answer.headers["content-type"] == "application/json":
    content = json.loads(content)
  return answer.status, answer.headers, content


def get(port, path, **headers):
  return ask(port, None, path, headers, "GET")


def form(*parts):
  """A form's body and headers, of (name, file's name or None, content)."""
  body = b""
  for name, file, content in parts:
    tail = "" if file is None else f'; filename="{file}"'
    head = f'--sep\r\nContent-Disposition: form-data; name="{name}"{tail}\r\n\r\n'
    body += head.encode() + content + b"\r\n"
  kind = {"Content-Type": "multipart/form-data; boundary=sep"}
  return body + b"--sep--\r\n", kind


def test_answers_are_those_of_a_prediction(run, scorer, images):
  """In whatever company an image is scored, and whatever else is asked for."""
  normal = run.calibrations["bottle"].normal[scoring.SCORE]
  wanted = list(inference.scores(run, images, "bottle"))
  limit = float(np.median([scored.score for scored in wanted]))
  compiled = len(run.programs)
  with (
    serving(scorer, limit=limit) as there,
    futures.ThreadPoolExecutor(CLIENTS) as clients,
  ):
    path = "/score?map=1&overlay=1"
    answers = list(
      clients.map(lambda each: ask(there.port, each.image.read_bytes(), path), images)
    )
  assert len(run.programs) == compiled
  verdicts = set()
  for scored, (status, _, told) in zip(wanted, answers, strict=True):
    assert status == 200, told
    full = inference.at_size(scored.map, decoding.original_size(scored.record))
    row = predicting.row(scored, full, normal, limit)
    assert told["score"] == pytest.approx(row["score"], abs=1e-5)
    assert told["map_max"] == pytest.approx(row["map_max"], abs=1e-5)
    if abs(row["score"] - limit) > 1e-5:
      assert told["verdict"] == row["verdict"]
    for name in ("normal_percentile", "side", "source", "what"):
      assert told[name] == row[name]
    assert " ".join(map(str, told["where"])) == row["where"]
    there = tifffile.imread(io.BytesIO(base64.b64decode(told["map"])))
    np.testing.assert_allclose(there, full, atol=1e-5)
    heat = np.array(Image.open(io.BytesIO(base64.b64decode(told["overlay"]))))
    drawn = figures.overlay(decoding.decode(scored.record), full)
    assert np.abs(np.int64(heat) - drawn).max() <= 1
    verdicts.add(told["verdict"])
  assert verdicts == {"ok", "anomalous"}


def test_a_form_s_file_is_scored_and_its_name_ignored(port, png):
  _, _, plain = ask(port, png)
  body, kind = form(("note", None, b"hi"), ("image", "../../etc/passwd.gif", png))
  status, _, told = ask(port, body, headers=kind)
  assert status == 200 and told == plain
  wrong = {"Content-Type": "text/x-../../etc", "Content-Disposition": "filename=../x"}
  assert ask(port, png, "/score?file=../x", wrong)[::2] == (200, plain)


def chunk(kind, content):
  check = zlib.crc32(kind + content)
  return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def bomb(side):
  """A PNG of a few bytes that promises many pixels."""
  head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
  return (
    b"\x89PNG\r\n\x1a\n"
    + head
    + chunk(b"IDAT", zlib.compress(b""))
    + chunk(b"IEND", b"")
  )


def saved(side, kind="PNG", **options):
  file = io.BytesIO()
  Image.new("RGB", (side, side)).save(file, kind, **options)
  return file.getvalue()


def two_pages():
  pages = [Image.new("L", (8, 8))]
  return saved(8, "TIFF", save_all=True, append_images=pages)


@pytest.mark.parametrize(
  ("body", "status", "message"),
  [
    (b"", 400, "is empty"),
    (b"hello", 415, "damaged at its beginning, or none of BMP"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "none of BMP"),
    (saved(8, "GIF"), 415, "none of BMP"),
    (bomb(200), 422, "damaged or of an unusual kind"),
    (saved(200)[:-60], 422, "damaged"),
    (two_pages(), 422, "it holds 2 pictures"),
    (bomb(10_000), 413, "10000 x 10000 is over"),
    (bomb(60_000), 413, "is over 89478485 pixels"),
    (saved(301), 413, "301 x 301 is over 90000 pixels"),
    (b"\0" * (10**6 + 1), 413, "over 1000000 bytes"),
    (b"\0" * (5 * 10**6), 413, "over 1000000 bytes"),
    (iter([b"\0" * 600_000] * 2), 413, "over 1000000 bytes"),
  ],
)
def test_hostile_bodies_are_told_why(port, png, body, status, message):
  got, headers, told = ask(port, body)
  assert (got, set(told)) == (status, {"error"}), told
  assert message in told["error"]
  assert headers["content-type"] == "application/json"
  assert ask(port, png)[0] == 200  # and others are still served


@pytest.mark.parametrize(
  ("parts", "message"),
  [
    ([("image", None, b"hi")], "The form has no file"),
    ([("a", "a.png", b"x"), ("b", "b.png", b"x")], "Too many files"),
    ([("image", "a.png", b"")], "is empty"),
  ],
)
def test_odd_forms_are_told_why(port, parts, message):
  body, kind = form(*parts)
  status, _, told = ask(port, body, headers=kind)
  assert status == 400 and message in told["error"]


@pytest.mark.parametrize(
  "kind", ["multipart/form-data", "multipart/form-data; boundary="]
)
def test_a_form_without_boundary_is_told_why(port, kind):
  status, _, told = ask(port, b"--x\r\n\r\n", headers={"Content-Type": kind})
  assert status == 400 and "The form cannot be read" in told["error"]


def test_other_mistakes_are_told_in_json(port, png):
  assert ask(port, png, "/score?map=please")[0] == 400
  for method, path, status in [("GET", "/score", 405), ("GET", "/../x", 404)]:
    got, _, told = ask(port, None, path, method=method)
    assert got == status and path in told["error"]


def test_a_token_is_asked_for(scorer, png):
  with serving(scorer, token="secret") as there:
    for headers in ({}, {"Authorization": "Bearer secre"}, {"Authorization": "secret"}):
      status, answer, told = ask(there.port, png, headers=headers)
      assert status == 401 and answer["www-authenticate"] == "Bearer"
      assert "Authorization: Bearer" in told["error"]
    assert get(there.port, "/metrics")[0] == 401
    assert ask(there.port, png, headers={"Authorization": "Bearer secret"})[0] == 200
    assert get(there.port, "/metrics", Authorization="bearer secret")[0] == 200
    assert get(there.port, "/health")[0] == get(there.port, "/")[0] == 200
    assert b'id="token"' in get(there.port, "/")[2]


def test_tokens_are_read_from_a_file_or_the_environment(tmp_path, monkeypatch):
  monkeypatch.delenv(admission.TOKEN, raising=False)
  assert admission.read_token(None) is None
  monkeypatch.setenv(admission.TOKEN, "of-environment")
  assert admission.read_token(None) == "of-environment"
  path = tmp_path / "token"
  path.write_text("of-file\n")
  assert admission.read_token(path) == "of-file"
  for wrong in ("", "\n", "two words", "ü"):
    path.write_text(wrong)
    with pytest.raises(ValueError, match="expected one line of visible ASCII"):
      admission.read_token(path)


class Held(ready.Scorer):
  """A scorer that waits until it is let go."""

  def __init__(self, scorer):
    self.__dict__ |= vars(scorer)
    self.go, self.counts = threading.Event(), []

  def score(self, images, pixels):
    self.counts.append(len(images))
    assert self.go.wait(60)
    return super().score(images, pixels)


def wait_for(holds):
  until = time.monotonic() + 60
  while not holds():
    assert time.monotonic() < until
    time.sleep(0.01)


def test_a_full_queue_says_when_to_come_again(scorer, png):
  held = Held(scorer)
  with (
    serving(held, admission.Limits(images=3)) as there,
    futures.ThreadPoolExecutor(4) as clients,
  ):
    first = [clients.submit(ask, there.port, png) for _ in range(3)]
    wait_for(lambda: there.service.inside == 3)
    status, headers, told = ask(there.port, png)
    assert status == 429 and "3 images are waiting" in told["error"]
    assert int(headers["retry-after"]) >= 1
    held.go.set()
    assert [each.result()[0] for each in first] == [200] * 3
    assert ask(there.port, png)[0] == 200
    text = get(there.port, "/metrics")[2].decode()
  assert 'nps_jax_requests_total{status="429"} 1' in text
  assert 'nps_jax_requests_total{status="200"} 4' in text


def test_what_was_begun_is_answered_before_the_end(scorer, png):
  held = Held(scorer)
  with serving(held) as there, futures.ThreadPoolExecutor(CLIENTS + 4) as clients:
    answers = [clients.submit(ask, there.port, png) for _ in range(CLIENTS + 4)]
    wait_for(lambda: there.service.inside == CLIENTS + 4)
    there.server.should_exit = True
    time.sleep(0.3)
    with pytest.raises(OSError):  # refused or reset
      ask(there.port, png)
    held.go.set()
    assert [each.result()[0] for each in answers] == [200] * (CLIENTS + 4)
  assert sum(held.counts) == CLIENTS + 4 and len(held.counts) <= 3


def test_a_queue_scores_together_what_waits():
  """And a batch that fails ends no other."""
  sizes, go = [], threading.Event()

  def score(batch):
    sizes.append(len(batch))
    assert go.wait(60)
    if "bad" in batch:
      raise RuntimeError("broken")
    return [each.upper() for each in batch]

  async def main():
    queue = batching.Queue(score, 4)
    work = asyncio.create_task(queue.work())
    first = asyncio.create_task(queue.ask("a"))
    while not sizes:
      await asyncio.sleep(0.01)
    names = ["b", "c", "d", "e", "bad", "f"]
    rest = [asyncio.create_task(queue.ask(name)) for name in names]
    while len(queue) < len(names):
      await asyncio.sleep(0.01)
    gone = rest.pop(1)
    gone.cancel()
    closing = asyncio.create_task(queue.close())
    go.set()
    answers = await asyncio.gather(first, *rest, return_exceptions=True)
    await work
    await closing
    return answers

  answers = asyncio.run(main())
  assert sizes == [1, 4, 2]
  assert answers[:4] == ["A", "B", "D", "E"]
  assert [str(each) for each in answers[4:]] == ["broken", "broken"]


def test_slow_connections_are_closed_and_keep_nobody_waiting(scorer, png):
  class Hasty(connections.Protocol):
    head_seconds = 0.5

  began = b"POST /score HTTP/1.1\r\nHost: x\r\n"
  body = began + b"Content-Length: 1000\r\n\r\nabc"
  limits = admission.Limits(seconds=0.5, images=64)
  with (
    serving(scorer, limits, protocol=Hasty) as there,
    contextlib.ExitStack() as stack,
  ):
    slow = [
      stack.enter_context(socket.create_connection(("127.0.0.1", there.port)))
      for _ in range(50)
    ]
    for at, each in enumerate(slow):
      each.sendall([b"", began, body][at % 3])
    assert ask(there.port, png)[0] == 200
    for at, each in enumerate(slow):
      each.settimeout(30)
      with contextlib.suppress(ConnectionResetError):
        said = b"".join(iter(lambda each=each: each.recv(4096), b""))
      assert said.startswith(b"HTTP/1.1 408") if at % 3 == 2 else said == b""
      assert at % 3 != 2 or b"has not come within 0.5 s" in said
    assert ask(there.port, png)[0] == 200


def test_kept_connections_are_watched_for_slow_heads_too(scorer):
  class Hasty(connections.Protocol):
    head_seconds = 0.5

  with serving(scorer, protocol=Hasty) as there:
    connection = http.client.HTTPConnection("127.0.0.1", there.port, timeout=30)
    with contextlib.closing(connection):
      for _ in range(3):
        connection.request("GET", "/health")
        assert connection.getresponse().read()
        time.sleep(0.2)
      connection.sock.sendall(b"GET /health HT")
      assert connection.sock.recv(100) == b""


def test_metrics_by_hand():
  rng = np.random.default_rng(0)
  normal, scores = np.float32(rng.gamma(3, size=40)), rng.gamma(4, size=30)
  monitor = monitoring.Monitor(normal)
  text = monitor.text(waiting=0, batches=0, computing=0.0)
  assert "drift" not in text and "nps_jax_recent_images 0\n" in text
  for at, score in enumerate(scores):
    monitor.add_image(score, "anomalous" if at < 6 else "ok", 0.05 if at % 2 else 7.0)
  text = monitor.text(waiting=3, batches=5, computing=1.5)
  values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
  values = {name: float(value) for name, value in values.items()}
  assert values['nps_jax_images_total{verdict="anomalous"}'] == 6
  assert values["nps_jax_recent_anomalous_share"] == pytest.approx(0.2)
  wanted = stats.ks_2samp(scores, normal).statistic
  assert values["nps_jax_drift_ks"] == pytest.approx(wanted, abs=1e-6)
  shift = np.median(scores) - np.median(normal)
  assert values["nps_jax_drift_median"] == pytest.approx(shift, abs=1e-6)
  assert values['nps_jax_latency_seconds_bucket{le="0.05"}'] == 15
  assert values['nps_jax_latency_seconds_bucket{le="+Inf"}'] == 30
  assert values["nps_jax_latency_seconds_sum"] == pytest.approx(15 * 7.05)
  assert values["nps_jax_waiting_images"] == 3
  for _ in range(monitoring.RECENT):
    monitor.add_image(float(normal[0]), "ok", 0.1)
  assert "nps_jax_recent_anomalous_share 0\n" in monitor.text(
    waiting=0, batches=0, computing=0.0
  )


def test_the_chance_of_drift_is_what_is_said():
  """Of samples alike one in a hundred is beyond it."""
  rng = np.random.default_rng(1)
  beyond = [
    monitoring.distance(rng.normal(size=200), rng.normal(size=100))
    > monitoring.BY_CHANCE * np.sqrt(1 / 200 + 1 / 100)
    for _ in range(2000)
  ]
  assert 0.003 < np.mean(beyond) < 0.02


def test_the_description_is_of_these_answers(port, png):
  _, _, told = ask(port, png, "/score?map=1&overlay=1")
  _, _, about = get(port, "/openapi.json")
  schema = about["components"]["schemas"]["Scored"]
  assert set(told) == set(schema["properties"])
  assert set(schema["required"]) == set(told) - {"map", "overlay"}
  text = get(port, "/docs")[2].decode()
  for path in about["paths"]:
    assert get(port, path)[0] == (405 if path == "/score" else 200)
    assert path in text
  home = get(port, "/")[2].decode()
  assert 'id="drop"' in home and 'id="token"' not in home and "http" not in home


@pytest.mark.parametrize(
  ("flag", "message"),
  [
    ("--port=70000", "expected a whole number from 0 to 65535"),
    ("--max-megapixels=90", "from 1 to 89"),
    ("--queue=x", "expected a whole number"),
  ],
)
def test_wrong_flags_are_refused(capsys, flag, message):
  with pytest.raises(SystemExit):
    serve.parse(["--run=x", flag])
  assert message in capsys.readouterr().err


def test_a_taken_port_is_told(run):
  with connections.listen("127.0.0.1", 0) as own:
    port = own.getsockname()[1]
    with pytest.raises(OSError, match=rf"--host=127.0.0.1 --port={port}"):
      connections.listen("127.0.0.1", port)


def test_the_command_ends_at_sigterm(run, png):
  words = (sys.executable, "-m", "nps_jax.serve", f"--run={run.folder}", "--port=0")
  server = subprocess.Popen(
    (*words, "--category=bottle"),
    env=os.environ | {admission.TOKEN: "secret"},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    said = [server.stdout.readline(), server.stdout.readline()]
    port = int(re.fullmatch(r"Listening at http://127\.0\.0\.1:(\d+)\n", said[1])[1])
    key = {"Authorization": "Bearer secret"}
    assert ask(port, png, headers=key)[0] == 200
    begun = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(begun):
      begun.putrequest("POST", "/score")
      for name, text in (key | {"Content-Length": str(len(png))}).items():
        begun.putheader(name, text)
      begun.endheaders(png[:100])
      assert get(port, "/health")[0] == 200  # by now the head has been read, too
      server.send_signal(signal.SIGTERM)
      time.sleep(0.5)
      begun.send(png[100:])
      assert begun.getresponse().status == 200
    out, errors = server.communicate(timeout=60)
  finally:
    server.kill()
  assert server.returncode == 0, errors
  assert "what was begun has been answered" in out and "Traceback" not in errors
