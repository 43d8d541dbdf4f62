"""The HTML report as a browser shows it. Skips where there is no Chromium."""

import html as standard_html
import json
import pathlib
import re
import shutil
import subprocess

import matplotlib.image
import pytest

from tests.report import html_runs as made
from tfadv.evaluation.whitebox import row
from tfadv.report import html

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-sync"),
    *("--disable-component-update", "--hide-scrollbars"),
)
PHONE, DESKTOP = 390, 1200
# Asked of every page, by the one around it: the page itself runs no script.
MEASURE = """
const page = frame.contentDocument, root = page.documentElement;
const sizes = [...page.querySelectorAll("p, li, td, th, summary, .value")]
    .filter(e => !e.closest("svg") && e.innerText)
    .map(e => parseFloat(frame.contentWindow.getComputedStyle(e).fontSize));
const boxes = [...page.querySelectorAll(".scroll")];
return {
  width: root.scrollWidth,
  height: root.scrollHeight,
  text: Math.min(...sizes),
  title: page.title,
  images: [...page.images].map(i => i.complete && i.naturalWidth),
  scrolling: boxes.filter(b => b.scrollWidth > b.clientWidth).length,
  outside: [...page.body.querySelectorAll("*")]
      .filter(e => !e.closest(".scroll, .hidden"))
      .filter(e => e.getBoundingClientRect().right > root.clientWidth + 0.5)
      .map(e => e.outerHTML.slice(0, 80)),
};
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")


def browse(tmp_path, *flags):
    """What headless Chromium prints."""
    profile = tmp_path / "profile"
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *flags],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def measured(path, width, tmp_path):
    """What `MEASURE` finds in the page in a frame of so many pixels."""
    page = standard_html.escape(path.read_text())
    around = tmp_path / f"around_{width}.html"
    around.write_text(
        f'<!DOCTYPE html><iframe id="frame" width="{width}" height="800" '
        f'style="border:0" srcdoc="{page}"></iframe><pre id="found"></pre><script>'
        f"frame.onload = () => {{ found.textContent = JSON.stringify((() => {{{MEASURE}"
        "})()); };</script>"
    )
    shown = browse(
        tmp_path, "--virtual-time-budget=5000", "--dump-dom", around.as_uri()
    )
    (found,) = re.findall(r'<pre id="found">(.*?)</pre>', shown, re.S)
    return json.loads(standard_html.unescape(found))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report with every part: wide tables, long names, all pictures."""
    place = tmp_path_factory.mktemp("report")
    sizes = [i / 255 for i in range(2, 18, 2)]
    rows = [row("clean", 0.0, 950, 1000)]
    for label in ("step_fgsm", "pgd(steps=40, step_size=0.01, restarts=20)"):
        rows += [row(label, eps, 900 - 20 * i, 1000) for i, eps in enumerate(sizes)]
    for one in rows:
        one |= {"one_off": 0.97, "confusion": [[90, 10], [5, 95]]}
    config = {k: dict(v) for k, v in made.CONFIG.items()}
    config["data"]["<script>document.title='evil'</script>"] = 140 * "x"
    config["train"] |= {f"key_{i}": i for i in range(120)}
    check = {"check": "steps", "status": "warn", "text": 90 * "y", "numbers": {"a": 1}}
    paths = []
    for name in ("a_run_with_quite_a_long_name_0123456789abcdef", "standard"):
        found = made.results(rows, config)
        paths.append(made.write_run(place / name, config=config, found=found))
        made.write_events(
            paths[-1] / "tensorboard",
            {"train/loss": {1: 2.0, 500: 1.0}, "test_subset/pgd": {1: 0.1, 500: 0.3}},
        )
        (paths[-1] / "sanity.json").write_text(json.dumps([check]))
    output = place / "report.html"
    html.write(
        paths,
        output,
        configs=ROOT / "configs",
        outcome_files=[ROOT / "results" / "na2018_table1.json"],
        made_by="bin/report --workdirs=" + 30 * "runs/one,",
    )
    return output


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_the_page_is_never_scrolled_sideways(report, tmp_path, width):
    found = measured(report, width, tmp_path)
    assert found["outside"] == []
    assert found["width"] == width
    # What is wider scrolls in a box of its own.
    assert found["scrolling"] >= 1
    # Small print is marked as such (small, .small) and is no smaller than 13 px.
    assert found["text"] >= 13
    assert found["title"].startswith("Robustness report: ")
    assert found["images"] == [4, 4]


def test_the_page_is_not_blank_in_light_and_dark(report, tmp_path):
    brightness = {}
    for name, scheme in (("light", 1), ("dark", 0)):
        picture = tmp_path / f"{name}.png"
        browse(
            tmp_path,
            f"--blink-settings=preferredColorScheme={scheme}",
            f"--window-size={DESKTOP},2400",
            f"--screenshot={picture}",
            report.as_uri(),
        )
        pixels = matplotlib.image.imread(picture)[..., :3].mean(axis=-1)
        brightness[name] = float(sorted(pixels.ravel())[pixels.size // 2])
        # Something is drawn in every third of it.
        for part in (pixels[:800], pixels[800:1600], pixels[1600:]):
            assert part.std() > 0.03, name
    assert brightness["dark"] < 0.2 < 0.9 < brightness["light"]


def test_it_is_printed_with_what_is_folded(report, tmp_path):
    path = tmp_path / "report.pdf"
    browse(tmp_path, f"--print-to-pdf={path}", report.as_uri())
    whole = path.read_bytes()
    assert whole.startswith(b"%PDF")
    folded = tmp_path / "folded.html"
    text = report.read_text()
    without = re.sub(r"<details>.*?</details>", "", text, flags=re.S)
    assert without != text
    folded.write_text(without)
    browse(tmp_path, f"--print-to-pdf={path}", folded.as_uri())

    def pages(content):
        return len(re.findall(rb"/Type\s*/Page\b", content))

    # Without them a page for every section: the comparison, two runs, a table. Each
    # of the two configurations has more lines than fit on one.
    assert pages(path.read_bytes()) >= 4
    assert pages(whole) >= pages(path.read_bytes()) + 2
