"""A hostile server's file comes whole or not at all (data/download.py)."""

import json
import logging
import random

import hostile
import pytest

from nps_jax.data import download

CONTENT = random.Random(0).randbytes(50000)
QUICK = download.Patience(stall=0.3, tries=3, wait=0.01)


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv("no_proxy", "*")
  with hostile.serving() as state:
    state.files["/a.tar"] = CONTENT
    yield state


@pytest.fixture
def get(server, tmp_path):
  """Downloads /a.tar; the folder is left with nothing beside it."""

  def fetch(**options):
    path = tmp_path / "a.tar"
    download.fetch(f"{server.url}/a.tar", path, QUICK, **options)
    assert [file.name for file in tmp_path.iterdir()] == ["a.tar"]
    return path.read_bytes()

  return fetch


def test_a_file_comes_at_once(server, get):
  assert get(size=len(CONTENT)) == CONTENT
  assert server.asked == [""]


@pytest.mark.parametrize(
  ("fault", "words"),
  [
    ("break", "the connection broke off after 25000 of 50000 bytes"),
    ("stall", "the connection stalled: nothing came for 0.3 s"),
  ],
)
def test_a_broken_download_goes_on_and_is_the_same(server, get, caplog, fault, words):
  server.faults = [fault, fault]
  assert get() == CONTENT
  assert server.asked == ["", "bytes=25000-", "bytes=37500-"]
  assert f"{words}. Trying again in 0.01 s" in caplog.text


def test_what_is_broken_off_in_the_end_is_gone_on_with_later(server, get, tmp_path):
  server.faults = ["break", 503, 503, 503]
  wanted = (
    r"a\.tar could not be downloaded: the server answers 503 .*; given up after 3 "
    r"tries that brought nothing new\. 25000 bytes are in .*a\.tar\.part: .*--from=FILE"
  )
  with pytest.raises(ConnectionError, match=wanted):
    get()
  assert (tmp_path / "a.tar.part").read_bytes() == CONTENT[:25000]
  server.asked.clear()
  assert get() == CONTENT
  assert server.asked == ["bytes=25000-"]


def test_tries_are_counted_anew_where_something_came(server, get):
  server.faults = ["break"] * 7
  assert get() == CONTENT


def test_a_server_that_ignores_ranges_begins_anew(server, get, caplog):
  server.ranges, server.faults = False, ["break"]
  assert get() == CONTENT
  assert server.asked == ["", "bytes=25000-"]
  assert "a.tar begins anew: the server cannot go on after 25000 bytes." in caplog.text


def test_a_server_that_ignores_ranges_and_breaks_off_is_given_up(server, get):
  server.ranges, server.faults = False, ["break"] * 4
  with pytest.raises(ConnectionError, match=r"broke off .* after 3 tries"):
    get()


def test_a_file_that_changed_meanwhile_is_begun_anew(server, get, caplog):
  server.faults = ["break", 503, 503, 503]
  with pytest.raises(ConnectionError):
    get()
  server.files["/a.tar"], server.tag = CONTENT[::-1] + b"more", '"two"'
  assert get() == CONTENT[::-1] + b"more"
  assert "the file has changed: 50004 bytes instead of 50000" in caplog.text


@pytest.mark.parametrize("length", [50004, 10000])
def test_another_length_is_noticed_without_tags(server, get, caplog, length):
  server.tag, server.faults = "", ["break", 503, 503, 503]
  with pytest.raises(ConnectionError):
    get()
  server.files["/a.tar"] = bytes(length)
  assert get() == bytes(length)
  assert (
    "the file there is no longer the one of which 25000 bytes are here "
    f"({length} bytes instead of 50000), which is begun anew"
  ) in caplog.text


def test_a_part_that_is_whole_needs_no_more(server, get, tmp_path):
  server.faults = ["break", 503, 503, 503]
  with pytest.raises(ConnectionError):
    get()
  (tmp_path / "a.tar.part").write_bytes(CONTENT)  # the end came before the rename
  assert get() == CONTENT


@pytest.mark.parametrize("note", ["", "[", '{"url": "http://elsewhere/a.tar"}'])
def test_a_part_of_unknown_origin_begins_anew(server, get, tmp_path, note):
  (tmp_path / "a.tar.part").write_bytes(b"other")
  (tmp_path / "a.tar.part.json").write_text(note)
  assert get() == CONTENT
  assert server.asked == [""]


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/x-xz"])
def test_a_web_page_is_recognised(server, get, tmp_path, kind):
  server.files["/a.tar"] = b"\n<!DOCTYPE html><html><body>Please log in</body></html>"
  server.kind = kind
  wanted = (
    r"/a\.tar answers with a web page instead of the file: .* Open the address in a "
    r"browser, fetch the file by hand, and give --from=FILE"
  )
  with pytest.raises(ValueError, match=wanted):
    get()
  assert not list(tmp_path.iterdir()) and len(server.asked) == 1


def test_a_web_page_in_place_of_the_end_keeps_the_beginning(server, get, tmp_path):
  server.faults = ["break", 503, 503, 503]
  with pytest.raises(ConnectionError):
    get()
  server.files["/a.tar"], server.ranges = b"<html></html>", False
  with pytest.raises(ValueError, match="web page"):
    get()
  assert (tmp_path / "a.tar.part").read_bytes() == CONTENT[:25000]
  server.files["/a.tar"], server.ranges = CONTENT, True
  assert get() == CONTENT


def test_an_address_that_refuses_is_not_asked_again(server, get, tmp_path):
  server.faults = [404]
  wanted = r"/a\.tar answers 404 Not Found: the publisher may have moved .*--from=FILE"
  with pytest.raises(ValueError, match=wanted):
    get()
  assert not list(tmp_path.iterdir()) and len(server.asked) == 1
  assert get() == CONTENT


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_busy_server_is_asked_again(server, get, caplog, status):
  server.faults = [status, status]
  assert get() == CONTENT
  assert f"the server answers {status}" in caplog.text


def test_another_size_ends_before_the_download(server, get, tmp_path):
  with pytest.raises(ValueError, match=r"/a\.tar has 50000 bytes instead of 7, so it"):
    get(size=7)
  assert not list(tmp_path.iterdir())


def test_a_server_that_is_not_there(server, tmp_path):
  url = "http://127.0.0.1:1/a.tar"
  with pytest.raises(
    ConnectionError, match=r"cannot be reached \(.*refused.*command again later"
  ):
    download.fetch(url, tmp_path / "a.tar", QUICK)


def test_waits_double(server, get, caplog):
  server.faults = [500, 500]
  caplog.set_level(logging.WARNING)
  get()
  assert "0.01 s" in caplog.text and "0.02 s" in caplog.text


def test_the_note_tells_the_file_from_later_ones(server, get, tmp_path):
  server.faults = ["break", 500, 500, 500]
  with pytest.raises(ConnectionError):
    get()
  note = json.loads((tmp_path / "a.tar.part.json").read_text())
  url = f"{server.url}/a.tar"
  assert note == {"url": url, "length": 50000, "validator": '"one"'}
