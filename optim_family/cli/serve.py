"""Execute `optim-family serve`: a page of the runs in a folder that follows them, on this machine only.

The server reads and writes nothing else. It answers GET of its page and its scripts, and a request must name
this machine as its host, so that a page of another site cannot read it through a name that it controls.
"""

import sys
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any, Final, final

from optim_family.analysis import run_summary
from optim_family.cli.output import Output
from optim_family.errors import CorruptError, UsageError
from optim_family.figures import html
from optim_family.figures.run_page import run_page
from optim_family.runs.layout import LOG, SPEC, STATUS
from optim_family.runs.run import Run, read_run

_LOCAL: Final = ("127.0.0.1", "localhost", "[::1]")
_EVERYWHERE: Final = ("0.0.0.0", "::", "")


@final
class Pages:
    """The page of a folder. Remembers the last one, and makes a new one if a run has changed."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = folders
        self._lock = Lock()
        self._version, self._page = "", ""

    def version(self) -> str:
        """Sizes and times of the files of all runs; different if a run has changed."""
        stats = [
            (str(file), file.stat().st_size, file.stat().st_mtime_ns)
            for run in self._runs()
            for file in (run / SPEC, run / LOG, run / STATUS)
            if file.exists()
        ]
        return f'"{hash(tuple(stats)):x}"'

    def page(self) -> tuple[str, str]:
        """The version, and the page of the runs as they are now."""
        with self._lock:
            version = self.version()
            if version != self._version:
                self._page, self._version = self._render(), version
            return self._version, self._page

    def _render(self) -> str:
        runs, problems = list[Run](), list[str]()
        for path in self._runs():
            try:
                run = read_run(path)
                run.columns.count  # noqa: B018  (reads the log)
                runs.append(run)
            except (CorruptError, UsageError, OSError) as error:
                problems.append(str(error))
        summaries = [run_summary.summary(run) for run in runs]
        title = f"{len(runs)} {'run' if len(runs) == 1 else 'runs'} in {', '.join(map(str, self.folders))}"
        return run_page(runs, summaries, title=title, problems=problems, live=True)

    def _runs(self) -> list[Path]:
        return sorted({file.parent for folder in self.folders for file in folder.rglob(SPEC)})


@final
class Server(ThreadingHTTPServer):
    """Serves pages to requests that name one of the hosts, or to all if there are none."""

    daemon_threads = True

    def __init__(self, pages: Pages, host: str, port: int) -> None:
        self.pages, self.hosts = pages, () if host in _EVERYWHERE else (*_LOCAL, host)
        super().__init__((host, port), _Handler)


@final
class _Handler(BaseHTTPRequestHandler):
    """Answers GET; every other method is refused by the base class."""

    server: Server

    def do_GET(self) -> None:
        """Send the page or a script."""
        name = self.path.partition("?")[0].removeprefix("/")
        if not self._known_host():
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", "this server answers its own machine only\n")
        elif name in html.LIVE_SCRIPTS:
            self._answer(HTTPStatus.OK, "text/javascript", html.script(name))
        elif name:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", "there is no such page\n")
        elif self.headers.get("If-None-Match") == self.server.pages.version():
            self._answer(HTTPStatus.NOT_MODIFIED, "text/html", "")
        else:
            version, page = self.server.pages.page()
            self._answer(HTTPStatus.OK, "text/html", page, ETag=version)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def _known_host(self) -> bool:
        host = self.headers.get("Host", "")
        name = host[: host.rindex(":")] if host.rpartition(":")[2].isdigit() else host
        return not self.server.hosts or name in self.server.hosts

    def _answer(self, status: HTTPStatus, kind: str, text: str, **headers: str) -> None:
        body = text.encode()
        self.send_response(status)
        for key, value in {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": html.LIVE_POLICY,
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-cache",
            **headers,
        }.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)


def serve(folders: Sequence[Path], host: str, port: int, output: Output) -> None:
    """Serve until Ctrl-C; print the address.

    Raises:
        UsageError: a folder does not exist, or the address cannot be used.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder; give one in which runs are or will be")
    try:
        server = Server(Pages(folders), host, port)
    except OSError as error:
        raise UsageError(f"{host}:{port} cannot be used: {error.strerror}; choose another --port") from None
    with server, suppress(KeyboardInterrupt):
        address = f"http://{'127.0.0.1' if host in _EVERYWHERE else host}:{server.server_address[1]}/"
        output.result({"address": address}, [""], [[address]])
        output.say("Ctrl-C ends it.")
        sys.stdout.flush()
        server.serve_forever()
