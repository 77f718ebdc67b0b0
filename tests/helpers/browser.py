"""A page in a real browser, chromium driven by Selenium; skipped with a reason where one is missing."""

import shutil
import time
from contextlib import contextmanager

import pytest

# The text of all tooltips, which are in shadow roots.
_TIPS = """
const tips = [];
const walk = (node) => {
  for (const each of node.querySelectorAll("*")) {
    if (each.classList.contains("tip") && each.checkVisibility()) tips.push(each.innerText);
    if (each.shadowRoot) walk(each.shadowRoot);
  }
};
walk(document);
return tips;
"""
# The position in the window of the point number i of a panel, where its curves are hit.
_POSITION = """
const view = [...figure.views()].find((view) => view.model.name === arguments[0]);
const points = view.model.renderers.at(-1).data_source.data;
const box = view.canvas_view.el.getBoundingClientRect();
const [x, y] = [points.x[arguments[1]], points.y[arguments[1]]];
return [box.left + view.frame.x_scale.compute(x), box.top + view.frame.y_scale.compute(y)];
"""


class Browser:
    """What the tests do with a page."""

    def __init__(self, driver):
        self.driver = driver
        self.js = driver.execute_script

    def open(self, page, address=""):
        self.driver.get("about:blank")  # a change of the hash alone would load nothing
        self.driver.get_log("browser")
        self.driver.get(f"{page.as_uri()}{address}")
        self.drawn()

    def drawn(self):
        self.driver.set_script_timeout(30)
        self.driver.execute_async_script("const done = arguments[0]; figure.drawn().then(() => done());")

    def curves(self, panel):
        """The data of the lines of a panel."""
        return self.js(
            "const view = [...figure.views()].find((view) => view.model.name === arguments[0]);"
            "return view.model.renderers.filter((r) => r.glyph.type === 'Line')"
            ".map((r) => ({x: [...r.data_source.data.x], y: [...r.data_source.data.y]}));",
            panel,
        )

    def hover(self, panel, point):
        """Move the mouse to a point of a panel; the texts of the tooltips that appear."""
        self.js("document.getElementById(`panel-${arguments[0]}`).scrollIntoView({block: 'center'})", panel)
        x, y = self.js(_POSITION, panel, point)
        for dx in (3, 0):
            event = {"type": "mouseMoved", "x": x + dx, "y": y}
            self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", event)
        return self.until(lambda: self.js(_TIPS))

    def until(self, found):
        """What the function returns, once it is not empty."""
        end = time.monotonic() + 10
        while not (value := found()) and time.monotonic() < end:
            time.sleep(0.05)
        return value

    def messages(self):
        """The warnings and errors of the console."""
        return [e["message"] for e in self.driver.get_log("browser") if e["level"] not in ("INFO", "DEBUG")]

    def requests(self):
        """The addresses that the page has asked for, itself excluded."""
        return self.js("return performance.getEntriesByType('resource').map((entry) => entry.name)")


@contextmanager
def browser():
    """A browser without a window."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the extra [browser]")
    programs = [shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")]
    if not all(programs):
        pytest.skip("needs chromium and chromedriver, the packages chromium and chromium-driver of Debian")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,1000"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
