"""The page of runs that train: read-only, for this machine, and with new records as they come."""

import http.client
import json
from threading import Thread

import pytest

from optim_family.cli.serve import Pages, Server
from optim_family.runs.store import RunStore
from tests.helpers.browser import browser
from tests.helpers.cli_runner import optim_family, refusal
from tests.helpers.fake_runs import make_run, stored

RUN = make_run(records=12)


@pytest.fixture
def server(tmp_path):
    """A server of a folder with one run, which has its first nine records."""
    with RunStore.open(tmp_path / "gd", RUN.spec) as store:
        for record in RUN.records[:9]:
            store.append(record)
    with Server(Pages([tmp_path]), "127.0.0.1", 0) as running:
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(server, path="/", method="GET", **headers):
    """Status, headers and text of an answer."""
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=30)
    connection.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, text


def append(folder, records):
    with RunStore.open(folder, RUN.spec) as store:
        for record in records:
            store.append(record)


def test_the_page_follows_its_runs(server, tmp_path):
    status, headers, text = ask(server)
    assert status == 200 and "1 run in" in text
    data = json.loads(text.partition('id="data">')[2].partition("</script>")[0])
    assert data["runs"][0]["columns"]["step"] == [record["step"] for record in RUN.records[:9]]
    assert ask(server, If_None_Match=headers["ETag"])[0] == 304
    append(tmp_path / "gd", RUN.records[9:])
    stored(tmp_path / "new", make_run("rmsprop", records=4))
    status, later, text = ask(server, If_None_Match=headers["ETag"])
    assert status == 200 and later["ETag"] != headers["ETag"] and "2 runs in" in text
    assert f",{RUN.records[-1]['step']}]" in text


def test_it_answers_its_own_machine_only_and_changes_nothing(server, tmp_path):
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert ask(server, Host="evil.example")[0] == 403
    assert ask(server, Host=f"localhost:{server.server_address[1]}")[0] == 200
    for method in ("POST", "PUT", "DELETE"):
        assert ask(server, method=method)[0] == 501
    for path in ("/../spec.json", "/gd/spec.json", "//etc/passwd", "/%2e%2e/spec.json"):
        assert ask(server, path)[0] == 404
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert server.server_address[0] == "127.0.0.1"


def test_its_policy_permits_its_own_scripts_only(server):
    _, headers, text = ask(server)
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';") and "connect-src 'self'" in policy
    assert ask(server, "/bokeh.js")[1]["Content-Type"].startswith("text/javascript")
    assert "<script>" not in text and text.count('<script src="/') == 4


def test_a_damaged_run_is_named_and_the_others_are_shown(server, tmp_path):
    stored(tmp_path / "broken", make_run("rmsprop", records=4))
    (tmp_path / "broken" / "metrics.jsonl").write_text("no JSON\n" * 4)
    status, _, text = ask(server)
    assert status == 200 and "1 run in" in text and "broken" in text.partition('class="bad"')[2][:400]


def test_a_folder_without_a_run_waits(tmp_path):
    version, page = Pages([tmp_path]).page()
    assert version and "0 runs in" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a folder"),
        (["--host", "203.0.113.1", "."], "203.0.113.1:8765 cannot be used"),
    ],
)
def test_what_cannot_be_served_is_refused(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert message in refusal(optim_family(capsys, "serve", *arguments))


def test_new_records_arrive_in_a_browser_without_a_reload(server, tmp_path):
    with browser() as page:
        page.driver.get(f"http://127.0.0.1:{server.server_address[1]}/#x=tau&log=0")
        page.drawn()
        page.js("window.stays = true; document.getElementById('run-0').open = true")
        assert len(page.curves("loss")[0]["x"]) == 9
        append(tmp_path / "gd", RUN.records[9:])
        assert page.until(lambda: len(page.curves("loss")[0]["x"]) == 12)
        assert page.js("return window.stays && document.getElementById('run-0').open")
        assert page.driver.current_url.endswith("#x=tau&log=0")
        assert page.messages() == []
