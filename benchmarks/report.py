"""The report of 100 and of 1,000 runs: processor time to write it, size of its page, wall time to open it.

A page is open once its figures are drawn, in chromium by chromedriver; the median of five times.
"""

import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from optim_family.analysis.claims import CLAIMS
from optim_family.analysis.study_results import evaluate_study
from optim_family.runs.columns import Columns
from optim_family.runs.run import Run
from optim_family.study import report
from optim_family.study.spec import StudySpec
from optim_family.training.spec import RunSpec

SEEDS, RECORDS = 5, 100


def run(number: int) -> Run:
    """A run of GD with two views whose curves are random, and different in every digit."""
    rng, arm = np.random.default_rng(number), number // SEEDS
    hyper = {"lr": round(0.1 * (1 + arm % 5), 1), "weight_decay": 0.01}
    spec = RunSpec(optimizer="gd", hyper=hyper, model=f"net{arm // 5}", seed=number % SEEDS, steps=RECORDS)
    step = np.arange(RECORDS, dtype=float)
    noise = np.exp(rng.normal(0, 0.1, RECORDS))
    columns = {
        "step": step,
        "tau": 1e-3 * step,
        "elapsed": step * noise,
        "train_loss": np.exp(-0.05 * step) * noise,
        "peak_loss": 2 * np.exp(-0.05 * step) * noise,
        "train_accuracy": np.minimum(1, 0.2 + 0.02 * step),
        "test_accuracy": 0.5 + 0.1 * noise,
        "lr": np.full(RECORDS, hyper["lr"]),
    }
    for view in ("spherical", "raw"):
        reading = dict.fromkeys(("ratio", "residual", "error", "bound", "seconds"), noise) | {
            "value": 900 * noise,
            "threshold": np.full(RECORDS, 900.0),
            "products": np.full(RECORDS, 11.0),
            "converged": np.ones(RECORDS),
        }
        columns |= {f"views.{view}": np.full(RECORDS, np.nan)}
        columns |= {f"views.{view}.{name}": values for name, values in reading.items()}
    status = {"status": "done", "step": RECORDS, "steps": RECORDS, "seconds": 60.0}
    return Run(
        Path(f"run-{number}"), spec.model_dump(mode="json"), status, {}, Columns.from_arrays(columns), list
    )


def opening(page: Path) -> str:
    """The seconds until the figures are drawn; a dash without a browser."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    service = shutil.which("chromedriver")
    if not (browser and service):
        return "–"
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,1000"):
        options.add_argument(flag)
    driver, times = webdriver.Chrome(options, webdriver.ChromeService(service)), []
    for _ in range(5):
        driver.get("about:blank")
        begin = time.perf_counter()
        driver.get(page.as_uri())
        driver.execute_async_script("const done = arguments[0]; figure.drawn().then(() => done());")
        times.append(time.perf_counter() - begin)
    driver.quit()
    return f"{statistics.median(times):.1f}"


def main() -> None:
    """Print a row for each number of runs."""
    print("runs  records  evaluate, s  write, s  page, MB  open, s")
    for count in (100, 1000):
        runs = [run(number) for number in range(count)]
        specs = tuple(RunSpec.model_validate(each.spec) for each in runs)
        study = StudySpec("benchmark", "How long does it take?", {"edge": CLAIMS["edge"]}, specs, "")
        with tempfile.TemporaryDirectory() as folder:
            begin = time.process_time()
            results = evaluate_study(study.claims, runs)
            middle = time.process_time()
            page = report.write(study, results, Path(folder))
            seconds = middle - begin, time.process_time() - middle
            size, wait = page.stat().st_size / 1e6, opening(page)
        numbers = f"{count:4}  {RECORDS:7}  {seconds[0]:11.1f}  {seconds[1]:8.1f}  {size:8.1f}  {wait:>7}"
        print(numbers, flush=True)


if __name__ == "__main__":
    main()
