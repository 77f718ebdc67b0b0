import pytest

import optim_family
from optim_family.errors import UsageError
from tests.helpers.browser import browser
from tests.helpers.fake_runs import make_run, stored


def test_the_figure_of_a_notebook_works_in_its_frame(tmp_path):
    stored(tmp_path / "runs" / "gd", make_run(records=9))
    figure = optim_family.plot_runs(tmp_path / "runs")
    assert repr(figure) == "RunFigure(runs=1)"
    figure.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == figure.page
    (tmp_path / "notebook.html").write_text(f"<!DOCTYPE html>{figure._repr_html_()}", encoding="utf-8")
    with browser() as page:
        page.driver.get((tmp_path / "notebook.html").as_uri())
        page.driver.switch_to.frame(0)
        page.drawn()
        assert len(page.curves("loss")[0]["x"]) == 9 and page.messages() == []
        page.driver.find_element("css selector", "#legend button").click()
        page.drawn()
        assert page.curves("loss") == []


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no run directory"):
        optim_family.plot_runs(tmp_path)
