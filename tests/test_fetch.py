"""Public data sets come whole, checked, or not at all (data/fetch.py)."""

import hashlib
import io
import json
import shutil
import tarfile
import zipfile

import filelock
import hostile
import pytest

from nps_jax.data import catalogue
from nps_jax.data import download
from nps_jax.data import fetch

QUICK = download.Patience(stall=0.3, tries=3, wait=0.01)
TREE = {
  "nuts/train/good/000.png": b"a" * 3000,
  "nuts/train/good/001.png": b"b",
  "nuts/validation/good/000.png": b"c",
  "nuts/test/good/000.png": b"d",
  "nuts/test/logical_anomalies/000.png": b"e",
  "nuts/ground_truth/logical_anomalies/000/000.png": b"f",
  "license.txt": b"terms",
}
COUNTS = {"train": 2, "validation": 1, "test": 2}
RIGHT = (("train", (2,)), ("validation", (1, 3)), ("test", (2,)))


def tar_of(tree, form="xz"):
  content = io.BytesIO()
  with tarfile.open(fileobj=content, mode=f"w:{form}") as tar:
    for name, data in tree.items():
      member = tarfile.TarInfo(name)
      member.size = len(data)
      tar.addfile(member, io.BytesIO(data))
  return content.getvalue()


def zip_of(tree):
  content = io.BytesIO()
  with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
    for name, data in tree.items():
      file.writestr(name, data)
  return content.getvalue()


ARCHIVE = tar_of(TREE)


def data_set(url, content=ARCHIVE, file="few.tar.xz", **changes):
  total = f"sha256:{hashlib.sha256(content).hexdigest()}"
  archive = catalogue.Archive(file, f"{url}/{file}", total, len(content))
  return catalogue.DataSet(
    "Few", len(content), "CC0", "any use", "https://few", (archive,), counts=RIGHT
  )._replace(**changes)


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setenv("no_proxy", "*")
  with hostile.serving() as state:
    state.files["/few.tar.xz"] = ARCHIVE
    yield state


def files_in(folder):
  paths = (path for path in folder.rglob("*") if path.is_file())
  there = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
  return {name: data for name, data in there.items() if name != fetch.MARK}


def names_in(folder):
  return sorted(path.name for path in folder.iterdir())


def test_a_data_set_is_downloaded_and_unpacked(server, tmp_path, caplog):
  out = tmp_path / "deep" / "data"
  assert fetch.fetch(data_set(server.url), out, patience=QUICK) == COUNTS
  assert files_in(out) == TREE
  assert names_in(out.parent) == ["data"]
  assert "expected" not in caplog.text
  mark = json.loads((out / fetch.MARK).read_text())
  total = f"sha256:{hashlib.sha256(ARCHIVE).hexdigest()}"
  assert mark == {"title": "Few", "sums": {"few.tar.xz": total}, "images": COUNTS}


def test_a_complete_folder_is_left_as_it_is(server, tmp_path):
  data, out = data_set(server.url), tmp_path / "data"
  fetch.fetch(data, out, patience=QUICK)
  server.asked.clear()
  assert fetch.fetch(data, out, patience=QUICK) == COUNTS
  assert not server.asked
  with pytest.raises(ValueError, match=r"data exists and is not Other as .* nuts/"):
    fetch.fetch(data._replace(title="Other"), out)


def test_a_folder_of_something_else_is_left_as_it_is(server, tmp_path):
  (tmp_path / "data").mkdir()
  (tmp_path / "data" / "mine.txt").write_text("mine")
  wanted = r"data exists and is not Few .*; it holds mine\.txt\. Remove it, or give"
  with pytest.raises(ValueError, match=wanted):
    fetch.fetch(data_set(server.url), tmp_path / "data")
  assert not server.asked and names_in(tmp_path) == ["data"]


@pytest.mark.parametrize("fault", ["break", "stall"])
def test_a_download_goes_on_by_the_same_command(server, tmp_path, fault):
  data, out = data_set(server.url), tmp_path / "data"
  server.faults = [fault, 500, 500, 500]
  with pytest.raises(ConnectionError, match="the same command goes on there"):
    fetch.fetch(data, out, patience=QUICK)
  assert names_in(tmp_path) == ["data.download"]
  server.asked.clear()
  assert fetch.fetch(data, out, patience=QUICK) == COUNTS
  assert server.asked == [f"bytes={len(ARCHIVE) // 2}-"]
  assert files_in(out) == TREE and names_in(tmp_path) == ["data"]


def test_a_wrong_sum_leaves_nothing_behind(server, tmp_path):
  data = data_set(server.url)
  server.files["/few.tar.xz"] = ARCHIVE[:-1] + b"?"
  actual = hashlib.sha256(ARCHIVE[:-1] + b"?").hexdigest()
  wanted = (
    rf"few\.tar\.xz is not the archive that was expected: its sha256 is {actual}, "
    rf"expected {data.archives[0].sum[7:]}\. The publisher's address or archive may "
    r"have changed: see https://few\. It was removed.*--from=FILE.*unpack yourself"
  )
  with pytest.raises(ValueError, match=wanted):
    fetch.fetch(data, tmp_path / "data", patience=QUICK)
  assert not list(tmp_path.iterdir())
  server.files["/few.tar.xz"] = ARCHIVE
  assert fetch.fetch(data, tmp_path / "data", patience=QUICK) == COUNTS


@pytest.mark.parametrize(
  ("change", "wanted"),
  [
    ({"kind": "text/html"}, "answers with a web page instead of the file"),
    ({"faults": [404]}, "answers 404 Not Found: the publisher may have moved"),
    ({"files": {"/few.tar.xz": b"short"}}, r"has 5 bytes instead of \d+"),
  ],
)
def test_what_is_not_the_archive_leaves_nothing(server, tmp_path, change, wanted):
  for name, value in change.items():
    setattr(server, name, value)
  with pytest.raises(ValueError, match=wanted):
    fetch.fetch(data_set(server.url), tmp_path / "data", patience=QUICK)
  assert not list(tmp_path.iterdir())


def test_errors_then_success(server, tmp_path):
  server.faults = [500, 503]
  assert fetch.fetch(data_set(server.url), tmp_path / "a", patience=QUICK) == COUNTS


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_an_unsafe_path_is_refused(server, tmp_path, pack):
  content = pack({"nuts/train/good/000.png": b"a", "nuts/../../evil": b"b"})
  server.files["/few.tar.xz"] = content
  out = tmp_path / "in" / "data"
  wanted = r"not safe to unpack; nothing was\. Members: nuts/\.\./\.\./evil \(a path"
  with pytest.raises(ValueError, match=wanted):
    fetch.fetch(data_set(server.url, content), out, patience=QUICK)
  assert names_in(tmp_path / "in") == ["data.download"]
  assert set(files_in(tmp_path)) <= {
    f"in/data.download/{n}" for n in ("few.tar.xz", fetch.LOCK)
  }


def test_a_failure_while_unpacking_keeps_the_archive(server, tmp_path, monkeypatch):
  data, out = data_set(server.url), tmp_path / "data"

  def fail(self, source, *_):
    raise OSError(28, "No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(tarfile.TarFile, "makefile", fail)
    with pytest.raises(OSError, match="No space left on device"):
      fetch.fetch(data, out, patience=QUICK)
  assert names_in(tmp_path) == ["data.download"]
  assert not (tmp_path / "data.download" / "unpacked").exists()
  server.asked.clear()
  assert fetch.fetch(data, out, patience=QUICK) == COUNTS
  assert not server.asked and names_in(tmp_path) == ["data"]


def test_what_a_kill_left_is_cleared(server, tmp_path):
  left = tmp_path / "data.download" / "unpacked" / "few.tar.xz" / "nuts"
  left.mkdir(parents=True)
  (left / "half.png").write_bytes(b"half")
  fetch.fetch(data_set(server.url), tmp_path / "data", patience=QUICK)
  assert files_in(tmp_path / "data") == TREE and names_in(tmp_path) == ["data"]


def test_other_counts_are_a_warning_with_both(server, tmp_path, caplog):
  counts = (("train", (1772, 1778)), ("validation", (1,)), ("test", (1568,)))
  fetch.fetch(data_set(server.url, counts=counts), tmp_path / "data", patience=QUICK)
  assert "Few has 2 images in train, expected 1772 or 1778: published" in caplog.text
  assert "Few has 2 images in test, expected 1568" in caplog.text
  assert "validation" not in caplog.text


def test_two_processes_do_not_mix(server, tmp_path):
  work = tmp_path / "data.download"
  work.mkdir()
  with (
    filelock.FileLock(work / fetch.LOCK),
    pytest.raises(ValueError, match=r"Another process is downloading into .*data"),
  ):
    fetch.fetch(data_set(server.url), tmp_path / "data", patience=QUICK)
  assert not server.asked


def test_a_full_disk_is_told_before_the_download(server, tmp_path, monkeypatch):
  usage = shutil.disk_usage(tmp_path)._replace(free=3_000_000)
  monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
  data = data_set(server.url)
  large = data.archives[0]._replace(size=2_000_000_000)
  wanted = r"has 3\.0 MB free; about 4\.0 GB are needed, .* give --out on another disk"
  with pytest.raises(ValueError, match=wanted):
    fetch.fetch(data._replace(archives=(large,)), tmp_path / "data", patience=QUICK)
  assert not server.asked and not list(tmp_path.iterdir())


def test_an_archive_fetched_by_hand_is_taken(server, tmp_path):
  archive = tmp_path / "from browser (1).xz"
  archive.write_bytes(ARCHIVE)
  data = data_set(server.url)
  assert fetch.fetch(data, tmp_path / "data", [archive], QUICK) == COUNTS
  assert not server.asked
  assert names_in(tmp_path) == ["data", archive.name]
  archive.write_bytes(b"<html>log in</html>")
  wanted = r"is a web page: its sha256 is .* It was left as it is\."
  with pytest.raises(ValueError, match=wanted):
    fetch.fetch(data, tmp_path / "other", [archive], QUICK)
  with pytest.raises(FileNotFoundError, match=r"--from=.*lost: there is no such file"):
    fetch.fetch(data, tmp_path / "other", [tmp_path / "lost"], QUICK)
  with pytest.raises(ValueError, match=r"--from=.*: expected the name of few\.tar\.xz"):
    fetch.fetch(data, tmp_path / "other", [archive, archive], QUICK)
  assert names_in(tmp_path) == ["data", archive.name]


@pytest.mark.parametrize("lone", [False, True])
def test_folders_around_the_categories_are_dropped(server, tmp_path, lone):
  tree = {name: data for name, data in TREE.items() if not lone or "nuts" in name}
  wrapped = {f"BTech/inner/{name}": data for name, data in tree.items()}
  content = zip_of(wrapped | {"__MACOSX/x": b""})
  server.files["/few.zip"] = content
  data = data_set(server.url, content, "few.zip")
  assert fetch.fetch(data, tmp_path / "data", patience=QUICK) == COUNTS
  assert files_in(tmp_path / "data") == tree


@pytest.fixture
def record(server):
  """A data set of two archives on a record, in the form of Zenodo's API."""
  category = {name[5:]: data for name, data in TREE.items() if name.startswith("nuts/")}
  entries = [{"key": "readme.md", "size": 1, "checksum": "md5:0", "links": {}}]
  for name, top in (("nuts.zip", "nuts/"), ("bolts.zip", "")):
    content = zip_of({top + path: data for path, data in category.items()})
    server.files[f"/{name}"] = content
    checksum = f"md5:{hashlib.md5(content).hexdigest()}"
    links = {"self": f"{server.url}/{name}"}
    entries.append(
      {"key": name, "size": len(content), "checksum": checksum, "links": links}
    )
  server.files["/record"] = json.dumps({"files": entries}).encode()
  address = f"{server.url}/record"
  return data_set(server.url, archives=(), record=address, counts=()), category


def test_a_record_tells_archives_and_sums(server, record, tmp_path):
  data, category = record
  images = fetch.fetch(data, tmp_path / "data", patience=QUICK)
  assert images == {split: 2 * number for split, number in COUNTS.items()}
  wanted = {
    f"{top}/{name}": category[name] for top in ("nuts", "bolts") for name in category
  }
  assert files_in(tmp_path / "data") == wanted and names_in(tmp_path) == ["data"]


def test_one_bad_archive_of_a_record_costs_no_other(server, record, tmp_path):
  data, _ = record
  right = server.files["/bolts.zip"]
  server.files["/bolts.zip"] = right[:-1] + b"?"
  with pytest.raises(ValueError, match=r"bolts\.zip is not .* its md5 is "):
    fetch.fetch(data, tmp_path / "data", patience=QUICK)
  assert "nuts.zip" in names_in(tmp_path / "data.download")
  server.files["/bolts.zip"] = right
  del server.files["/nuts.zip"]
  fetch.fetch(data, tmp_path / "data", patience=QUICK)
  assert {"bolts", "nuts"} < set(names_in(tmp_path / "data"))


def test_archives_of_a_record_fetched_by_hand_go_by_their_names(
  server, record, tmp_path
):
  data, _ = record
  nuts, other = tmp_path / "nuts.zip", tmp_path / "other.zip"
  for path in (nuts, other):
    path.write_bytes(server.files["/nuts.zip"])
  with pytest.raises(
    ValueError, match=r"other\.zip: expected the name of nuts\.zip, b"
  ):
    fetch.fetch(data, tmp_path / "data", [other], QUICK)
  del server.files["/nuts.zip"]
  fetch.fetch(data, tmp_path / "data", [nuts], QUICK)
  assert {"bolts", "nuts"} < set(names_in(tmp_path / "data"))


@pytest.mark.parametrize("content", [b"[]", b"{", b'{"files": []}', b'{"files": [{}]}'])
def test_another_form_of_record_is_told(server, record, tmp_path, content):
  server.files["/record"] = content
  with pytest.raises(ValueError, match=r"/record is not what Zenodo's records were \("):
    fetch.fetch(record[0], tmp_path / "data", patience=QUICK)
  assert not list(tmp_path.iterdir())


def test_a_damaged_zip_is_refused(server, tmp_path):
  content = bytearray(zip_of({"nuts/train/good/000.png": bytes(range(256)) * 9}))
  content[60] ^= 255
  server.files["/few.zip"] = bytes(content)
  data = data_set(server.url, bytes(content), "few.zip")
  with pytest.raises(ValueError, match=r"few\.zip is damaged or cut short \("):
    fetch.fetch(data, tmp_path / "data", patience=QUICK)
  assert not (tmp_path / "data").exists()


def test_without_the_flag_the_licence_is_shown_and_nothing_done(tmp_path, capsys):
  for name, data in catalogue.DATA_SETS.items():
    with pytest.raises(SystemExit, match=r"If you accept this, add --accept-licence\."):
      fetch.main([f"--name={name}", f"--out={tmp_path / 'data'}"])
    shown = capsys.readouterr().out
    for part in (data.title, "B to download", data.licence, data.terms, data.page):
      assert part in shown
    assert "Licence: CC BY" in shown and "From: https://" in shown
  assert not list(tmp_path.iterdir())


def test_the_command_says_what_it_made(server, tmp_path, monkeypatch, capsys):
  data = data_set(server.url, note="Arrange them.")
  monkeypatch.setitem(catalogue.DATA_SETS, "visa", data)
  flags = ["--name=visa", f"--out={tmp_path / 'data'}", "--accept-licence"]
  fetch.main(flags)
  shown = capsys.readouterr().out.splitlines()
  assert shown[0].startswith("Few: 0.0 MB to download")
  images = "train 2, validation 1, test 2 images."
  assert shown[-2:] == [f"Few is in {tmp_path / 'data'}: {images}", "Arrange them."]
  (tmp_path / "data" / fetch.MARK).unlink()
  with pytest.raises(SystemExit, match=r"^Error: .*data exists and is not Few"):
    fetch.main(flags)
  by_hand = f"--from={tmp_path / 'lost.tar'}"
  with pytest.raises(SystemExit, match=r"^Error: --from=.*lost\.tar: there is no such"):
    fetch.main([flags[0], f"--out={tmp_path / 'new'}", flags[2], by_hand])


def test_a_stop_by_hand_is_told(server, tmp_path, monkeypatch):
  def stop(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(fetch, "fetch", stop)
  with pytest.raises(SystemExit, match="The same command goes on from here"):
    fetch.main(["--name=visa", f"--out={tmp_path}", "--accept-licence"])


def test_every_line_of_the_catalogue_is_whole():
  for name, data in catalogue.DATA_SETS.items():
    assert bool(data.archives) != bool(data.record), name
    for archive in data.archives:
      assert archive.url.startswith("https://") and archive.size == data.size
      kind, _, total = archive.sum.partition(":")
      assert kind == "sha256" and len(bytes.fromhex(total)) == 32
      assert archive.file.endswith((".tar.xz", ".tar.gz", ".tar", ".zip"))


def test_folders_are_arranged_before_they_are_counted(server, tmp_path):
  def arrange(root):
    (root / "nuts/train/good/001.png").rename(root / "nuts/test/good/001.png")

  data = data_set(server.url, arrange=arrange)
  found = fetch.fetch(data, tmp_path / "data", patience=QUICK)
  assert found == {"train": 1, "validation": 1, "test": 3}


def test_folders_that_cannot_be_arranged_leave_the_archive(server, tmp_path):
  def refuse(root):
    raise ValueError("Nothing is where it was.")

  data = data_set(server.url, arrange=refuse)
  with pytest.raises(ValueError, match="Few cannot be arranged in train and test"):
    fetch.fetch(data, tmp_path / "data", patience=QUICK)
  assert not (tmp_path / "data").exists()
  assert names_in(tmp_path / "data.download") == [fetch.LOCK, "few.tar.xz"]
