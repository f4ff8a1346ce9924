"""The page of results: what it says and asks for, and what it does in a browser."""

import base64
import html.parser
import io
import json
import re
import shutil
import types

import numpy as np
from PIL import Image
import pytest
from scipy import ndimage

from nps_jax import publishing
from nps_jax.data import folder
from nps_jax.drawn import synthetic
from nps_jax.report import gallery
from nps_jax.report import page
from nps_jax.report import plots
from nps_jax.report import table as results_table
from nps_jax.study import page as sweep_page
from nps_jax.study import table as sweep_table

COUNTS = synthetic.Counts(train=2, validation=2, good=6, per_flaw=2)


def judged(data):
  """Noise, and on most anomalous images more of it; scores that err on some."""
  rng = np.random.default_rng(0)
  for at, record in enumerate(data.test):
    good = record.kind == "good"
    full = ndimage.gaussian_filter(rng.normal(1 - good, 1, (64, 64)), 3)
    score = 0.2 + 0.15 * at if good else 0.4 + 0.25 * (at - 6)
    reason = {"side": "local", "source": "memory", "where": "0 0 8 8", "what": ""}
    yield record, full, {"id": record.id, "file": "f", "score": score, **reason}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
  root = tmp_path_factory.mktemp("drawn")
  synthetic.write(root, ("tray",), size=64, counts=COUNTS)
  data = folder.open_category(root, "tray")
  facts = {"Run": "<b>mine & yours</b>"}
  return publishing.measure(data, judged(data), publishing.Options(), facts, True)


class Reader(html.parser.HTMLParser):
  """Collects every element with its attributes."""

  def __init__(self, text):
    super().__init__()
    self.elements = []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))

  def of(self, tag):
    return [attributes for name, attributes in self.elements if name == tag]


def cards(reader):
  return [each for each in reader.of("li") if "data-score" in each]


def test_a_page_asks_for_nothing_and_shows_every_image(measured, tmp_path):
  page.write(tmp_path / "report.html", [measured])
  text = (tmp_path / "report.html").read_text()
  reader = Reader(text)
  for _, attributes in reader.elements:
    for name in ("src", "href"):
      assert attributes.get(name, "data:").startswith("data:")
  assert "http" not in text and "url(" not in text and "import " not in text
  assert all("alt" in each for each in reader.of("img"))
  assert "&lt;b&gt;mine &amp; yours&lt;/b&gt;" in text
  images = [(each.row["score"], each.good) for each in measured.shots]
  found = [(float(e["data-score"]), e["data-good"] == "True") for e in cards(reader)]
  assert sorted(found) == sorted(images)
  embedded = re.search(r"const IMAGES = (.*);", text)[1]
  assert [tuple(each) for each in json.loads(embedded)] == images
  (slider,) = [each for each in reader.of("input") if each.get("type") == "range"]
  assert float(slider["value"]) == 1
  ids = [each["id"] for _, each in reader.elements if "id" in each]
  assert len(ids) == len(set(ids)) and {"limit", "order", "kind", "only"} <= set(ids)
  labels = {each["for"] for each in reader.of("label") if "for" in each}
  assert "limit" in labels


def test_the_worst_mistakes_come_first(measured):
  """Of mistakes the farthest from the threshold first, then the nearest of the rest."""
  ranked = gallery.worst_first(measured.shots, 0.7)
  wrong = [shot.good == (shot.row["score"] > 0.7) for shot in ranked]
  gaps = [abs(shot.row["score"] - 0.7) for shot in ranked]
  count = sum(wrong)
  assert 0 < count < len(wrong) and wrong == sorted(wrong, reverse=True)
  assert gaps[:count] == sorted(gaps[:count], reverse=True)
  assert gaps[count:] == sorted(gaps[count:])


def test_a_page_is_bounded_and_says_what_it_leaves_out(measured, monkeypatch):
  whole = page.of_category(measured)
  monkeypatch.setattr(page, "ROOM", 20_000)
  text = page.of_category(measured)
  shown, total = len(cards(Reader(text))), len(measured.shots)
  assert 0 < shown < total and len(text) < len(whole)
  assert f"{total - shown} images more are in scores.csv" in text
  assert len(json.loads(re.search(r"const IMAGES = (.*);", text)[1])) == total


def test_a_picture_is_small_and_outlines_the_truth(measured):
  shot = next(each for each in measured.shots if each.truth is not None)
  assert max(shot.image.shape) == 64 and shot.truth.shape == (64, 64)
  blank = shot._replace(map=np.zeros((64, 64), np.float32))
  outlined, plain = (
    np.int64(
      Image.open(io.BytesIO(base64.b64decode(gallery.pictures(each, 1.0, 3.0)[1])))
    )
    for each in (blank, blank._replace(truth=None))
  )
  ring = ndimage.binary_dilation(shot.truth) & ~shot.truth
  change = np.abs(outlined - plain).sum(axis=2)
  assert change[ring].mean() > 60
  assert change[~ndimage.binary_dilation(ring, iterations=9)].mean() < 3


def test_maps_without_a_scale_are_coloured_by_the_good_ones(measured):
  faint, full = gallery.colours(measured.shots)
  good = [each.map.max() for each in measured.shots if each.good]
  assert np.median(good) == pytest.approx(faint)
  assert full == pytest.approx(max(each.map.max() for each in measured.shots))
  alike = [measured.shots[0]._replace(map=np.ones((4, 4), np.float32))]
  faint, full = gallery.colours(alike)
  assert full > faint


def test_an_index_leads_to_a_page_for_each_category(measured, tmp_path):
  other = measured._replace(result=measured.result | {"category": "box"})
  path = tmp_path / "report.html"
  page.write(path, [measured, other])
  names = [each.name for each in page.paths(path, ["tray", "box"])]
  assert names == ["report.html", "report_tray.html", "report_box.html"]
  links = [each["href"] for each in Reader(path.read_text()).of("a")]
  assert links == ["report_tray.html", "report_box.html"]
  back = Reader((tmp_path / "report_box.html").read_text()).of("a")
  assert [each["href"] for each in back] == ["report.html"]


def test_curves_and_bars_by_hand():
  plot = plots.roc(np.array([0.0, 2.0]), {"a": np.array([1.0, 3.0])})
  points = plot["lines"][0]["points"]
  assert points == "0.0,240.0 0.0,120.0 150.0,120.0 150.0,0.0 300.0,0.0"
  drawn = plots.histogram([0.0, 0.0, 1.0, 5.0], ["good", "good", "dent", "dent"], 1.0)
  assert drawn["low"] == 0 and drawn["high"] >= 1.2
  by_kind = {each["name"]: each["colour"] for each in drawn["series"]}
  heights = [(bar["colour"], bar["height"]) for bar in drawn["bars"]]
  assert heights[0] == (by_kind["good"], 220) and len(heights) == 3
  assert {height for _, height in heights[1:]} == {110}
  assert drawn["bars"][-1]["says"].endswith("to more")
  same = plots.histogram([2.0], ["good"], 2.0)
  assert same["high"] > same["low"]


def sweep(tmp_path, names=("bag", "box")):
  """The summary of two variants, three seeds, and some products."""
  rng = np.random.default_rng(0)
  entries = []
  for variant, base in (("default", 0.9), ("less", 0.8)):
    for category in names:
      for seed in range(3):
        auroc = {
          name: base + 0.05 * rng.random()
          for name in ("logical", "structural", "mean", "pooled")
        }
        regions = {"mean": {"0.05": base - 0.3}}
        result = {"image_auroc": auroc, "au_spro": regions, "au_pro": None}
        entries.append(sweep_table.Entry(variant, category, seed, result))
  seeds = (0, 1, 2)
  lines = sweep_table.summarise(entries, ("default", "less"), names, seeds)
  place = tmp_path / "default/bag/seed0"
  place.mkdir(parents=True)
  (place / page.NAME).write_text("")
  return {
    "command": ["python", "-m", "nps_jax.sweep", "--out=<x>"],
    "categories": list(names),
    "seeds": list(seeds),
    "variants": {"default": {}, "less": {}},
    "summary": lines,
    "runs": [{"name": "default/bag/seed0", "started": None}],
  }


def test_a_sweep_s_page_has_the_gain_seed_by_seed(tmp_path):
  content = sweep(tmp_path)
  text = sweep_page.of_sweep(content, ["One failed."], tmp_path)
  default, less = (
    next(e for e in content["summary"] if (e["variant"], e["category"]) == (v, "box"))
    for v in ("default", "less")
  )
  name = "image_auroc.pooled"
  gaps = np.subtract(
    less["metrics"][name]["values"], default["metrics"][name]["values"]
  )
  mean, deviation = sweep_page.gain(less, default, name)
  assert mean == pytest.approx(gaps.mean()) and deviation == gaps.std(ddof=1)
  assert f"({100 * mean:+.1f} ± {100 * deviation:.1f})" in text
  assert "One failed." in text and "--out=&lt;x&gt;" in text and "http" not in text
  links = [each["href"] for each in Reader(text).of("a")]
  assert links == ["default/bag/seed0/report.html"]
  assert len(Reader(text).of("rect")) == 2 * 2 * 2
  assert "SALAD" not in text


def test_a_sweep_of_loco_stands_beside_what_others_report(tmp_path):
  content = sweep(tmp_path, results_table.LOCO)
  text = sweep_page.of_sweep(content, [], tmp_path)
  assert "<h2>Beside what others report</h2>" in text
  assert '<th scope="row">SALAD</th><td class="number">96.5</td>' in text
  _, rows = sweep_table.beside_published(content["summary"])
  own = rows[-2:]
  assert [row[0] for row in own] == ["default", "less"]
  assert own[0][5] == "60.0 ± 0.0"  # AU-sPRO
  assert all(
    f'<td class="number">{cell}</td>' in text for row in own for cell in row[1:6]
  )


# In a browser.


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
  """Debian's Chromium, without a screen."""
  from selenium import webdriver  # noqa: PLC0415 - seconds

  programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
  assert all(programs.values()), f"install chromium and chromium-driver: {programs}"
  options = webdriver.ChromeOptions()
  options.binary_location = programs["chromium"]
  for word in (
    *("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-sync"),
    *("disable-background-networking", "disable-component-update"),
    f"user-data-dir={tmp_path_factory.mktemp('profile')}",
  ):
    options.add_argument(f"--{word}")
  options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
  service = webdriver.ChromeService(programs["chromedriver"])
  driver = webdriver.Chrome(options=options, service=service)
  driver.get("about:blank")
  for log in ("browser", "performance"):
    driver.get_log(log)  # of its own first page
  yield driver
  driver.quit()


def look(browser, path):
  """Opens a page; returns short names for what a reader does with it."""
  browser.get(path.as_uri())
  run = browser.execute_script

  def act(name, value, event="change"):
    kind = "checked" if isinstance(value, bool) else "value"
    run(
      f"const e = document.getElementById('{name}'); e.{kind} = arguments[0];"
      f"e.dispatchEvent(new Event('{event}'));",
      value,
    )

  def shown():
    return run(
      "return [...document.querySelectorAll('#gallery li')].filter(e => !e.hidden)"
      ".map(e => [Number(e.dataset.score), e.dataset.good === 'True', e.className,"
      " e.dataset.kinds])"
    )

  def text(name):
    return run(f"return document.getElementById('{name}').textContent")

  return types.SimpleNamespace(act=act, shown=shown, text=text, run=run)


@pytest.mark.slow
def test_the_page_works_in_a_browser(measured, tmp_path, browser):
  path = tmp_path / "report.html"
  page.write(path, [measured])
  there = look(browser, path)
  good = [each.row["score"] for each in measured.shots if each.good]
  bad = [each.row["score"] for each in measured.shots if not each.good]
  began = f"{sum(score > 1 for score in good)} of {len(good)} good images above it"
  assert there.text("counts").startswith(began)
  for limit in (1.0, 0.5):
    there.act("limit", str(limit), "input")
    moved = float(there.run("return document.getElementById('limit').value"))
    assert moved == pytest.approx(limit, abs=0.01)
    alarms = sum(score > moved for score in good)
    misses = sum(score <= moved for score in bad)
    assert there.text("counts") == (
      f"{alarms} of {len(good)} good images above it (false alarms), "
      f"{misses} of {len(bad)} anomalous ones not (misses)"
    )
    there.run("return new Promise(done => setTimeout(done, 200))")  # its own pause
    wrong = [shot for shot in there.shown() if shot[2] == "mistake"]
    assert len(wrong) == alarms + misses > 0
    assert [shot[2] for shot in there.shown()[: len(wrong)]] == ["mistake"] * len(wrong)
  there.act("order", "down")
  scores = [shot[0] for shot in there.shown()]
  assert scores == sorted(scores, reverse=True) and len(scores) == len(good + bad)
  there.act("order", "up")
  assert [shot[0] for shot in there.shown()] == sorted(scores)
  there.act("kind", "missing_pin")
  kinds = [shot[3] for shot in there.shown()]
  assert kinds and all("missing_pin" in each.split("|") for each in kinds)
  assert there.text("shown") == f"{len(kinds)} images shown"
  there.act("kind", "")
  there.act("only", True)
  assert {shot[2] for shot in there.shown()} == {"mistake"}
  check_quiet(browser, path)


def check_quiet(browser, *paths):
  """No error on the console, no request but for the files themselves."""
  assert browser.get_log("browser") == []
  sent = [json.loads(entry["message"]) for entry in browser.get_log("performance")]
  asked = {
    each["message"]["params"]["request"]["url"]
    for each in sent
    if each["message"]["method"] == "Network.requestWillBeSent"
  }
  own = {path.as_uri() for path in paths}
  assert {url for url in asked if not url.startswith("data:")} <= own and asked


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_pages_fit_their_screen(measured, tmp_path, browser, width):
  """Nothing but a table's own frame scrolls sideways."""
  one, other = tmp_path / "report.html", tmp_path / "sweep.html"
  page.write(one, [measured])
  other.write_text(sweep_page.of_sweep(sweep(tmp_path), [], tmp_path))
  for path in (one, other):
    browser.execute_cdp_cmd(
      "Emulation.setDeviceMetricsOverride",
      {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False},
    )
    there = look(browser, path)
    assert there.run("return window.innerWidth") == width
    assert there.run("return document.documentElement.scrollWidth") <= width
  check_quiet(browser, one, other)


def test_scores_without_a_scale_begin_at_the_highest_good_one(measured):
  free = measured._replace(scaled=False)
  text = page.of_category(free)
  highest = max(each.row["score"] for each in measured.shots if each.good)
  (slider,) = [e for e in Reader(text).of("input") if e.get("type") == "range"]
  assert float(slider["value"]) == highest
  assert "a threshold for use must come from other normal images" in text
