"""A local HTTP server that misbehaves in the ways that servers and networks do."""

import contextlib
import http.server
import re
import threading


class Hostile:
  """What the server offers, how it misbehaves, and what it was asked for."""

  def __init__(self, port):
    self.files = {}  # path: content
    self.faults = []  # of the next answers, one each; then it behaves
    self.ranges = True  # whether it can go on in the middle
    self.tag = '"one"'
    self.kind = "application/octet-stream"
    self.asked = []  # the Range of each request, or ""
    self.released = threading.Event()  # ends stalls
    self.url = f"http://127.0.0.1:{port}"


class Handler(http.server.BaseHTTPRequestHandler):
  def log_message(self, *_):
    pass

  def do_GET(self):
    state = self.server.state
    fault = state.faults.pop(0) if state.faults else ""
    state.asked.append(self.headers.get("Range", ""))
    content = state.files.get(self.path)
    if content is None or isinstance(fault, int):
      self.send_error(fault or 404)
      return
    start = 0
    match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
    same = self.headers.get("If-Range", state.tag) == state.tag
    if match and state.ranges and same:
      start = int(match[1])
      if start >= len(content):
        self.send_response(416)
        self.send_header("Content-Range", f"bytes */{len(content)}")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return
      self.send_response(206)
      span = f"bytes {start}-{len(content) - 1}/{len(content)}"
      self.send_header("Content-Range", span)
    else:
      self.send_response(200)
    if state.tag:
      self.send_header("ETag", state.tag)
    self.send_header("Content-Type", state.kind)
    self.send_header("Content-Length", str(len(content) - start))
    self.end_headers()
    rest = content[start:]
    if not fault:
      self.wfile.write(rest)
      return
    self.wfile.write(rest[: len(rest) // 2])
    self.wfile.flush()
    if fault == "stall":
      state.released.wait(10)
    self.close_connection = True


@contextlib.contextmanager
def serving():
  """The state of a running server."""
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  server.daemon_threads = True
  state = server.state = Hostile(server.server_address[1])
  thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
  thread.start()
  try:
    yield state
  finally:
    state.released.set()
    server.shutdown()
    thread.join()
    server.server_close()
