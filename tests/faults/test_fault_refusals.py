"""A system that refuses: disk full, quota, read-only, I/O errors, at every place where a run writes."""

import errno
import itertools
import os
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from optim_family.figures import run_figure
from optim_family.runs.run import read_run
from optim_family.training import checkpoint
from tests.helpers.cli_runner import optim_family
from tests.helpers.counts import tries
from tests.helpers.training_runs import untimed

CALLS = ("open", "write", "fsync", "replace", "ftruncate", "mkdir", "unlink")
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
EACH = tries(1, 3)
COMMAND = ("run", "--optimizer", "gd", "--model", "bn_mlp", "--limit", 20, "--steps", 4, "--every", 2)
OPTIONS = ("--device", "cpu", "--rtol", 0.01, "--resume")


class Calls:
    """The system calls of this process that write below a folder: counted, and one of them refused."""

    def __init__(self, patch, root, refused=0, code=0):
        self.root, self.refused, self.code, self.seen = Path(root), refused, code, []
        for name in CALLS:
            patch.setattr(os, name, self.wrapped(name, getattr(os, name)))

    def wrapped(self, name, real):
        def call(target, *args, **kwargs):
            if site := self.site(name, target, args):
                self.seen.append(site)
                if len(self.seen) == self.refused:
                    raise OSError(self.code, os.strerror(self.code))
            return real(target, *args, **kwargs)

        return call

    def site(self, name, target, args):
        """The call and the file, or None if it writes nothing here; unfinished files go by their folder."""
        if name == "open" and not (args and args[0] & (os.O_WRONLY | os.O_RDWR)):
            return None
        path = Path(os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else target)
        path = Path(args[0]) if name == "replace" else path
        if not path.is_relative_to(self.root) or (name == "mkdir" and path.exists()):
            return None
        stem = path.name if not path.name.startswith(".") else "unfinished"
        return name, path.parent.name, "checkpoint" + path.suffix if stem.startswith("step-") else stem


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(run_figure, "figure", lambda *_args, **_options: Figure(figsize=(1, 1)))
    monkeypatch.setattr("optim_family.training.loop.CHECKPOINT_SECONDS", 0.0)


def test_a_refusal_at_every_write_site(tmp_path, capsys, monkeypatch, fast, held):
    with monkeypatch.context() as patch:
        calls = Calls(patch, tmp_path)
        assert optim_family(capsys, *COMMAND, *OPTIONS, "--out", tmp_path / "whole").code == 0
    wanted = [untimed(record) for record in read_run(tmp_path / "whole").records]
    places = {site: [n for n, each in enumerate(calls.seen, 1) if each == site] for site in calls.seen}
    assert {name for name, *_ in places} >= set(CALLS) - {"unlink"}
    target, codes, folders = EACH * len(places), itertools.cycle(ERRORS), itertools.count()
    for site, numbers in places.items():
        for number in (numbers[0], numbers[-1], numbers[len(numbers) // 2])[:EACH]:
            folder, code = tmp_path / f"{next(folders)}" / "run", next(codes)
            folder.parent.mkdir()
            with monkeypatch.context() as patch:
                Calls(patch, folder.parent, number, code)
                answer = optim_family(capsys, *COMMAND, *OPTIONS, "--out", folder)
            assert answer.code == 5, (site, answer)
            assert answer.err.splitlines()[-1].count(os.strerror(code)) == 1, (site, answer.err)
            assert "Traceback" not in answer.err and not answer.out
            warnings = []
            checkpoint.load_latest(folder / "checkpoints", warnings.append)
            assert not warnings, (site, warnings)
            assert optim_family(capsys, *COMMAND, *OPTIONS, "--out", folder).code == 0, site
            assert [untimed(record) for record in read_run(folder).records] == wanted, site
            held("disk full, quota, read-only and I/O errors at every write site", of=target)
