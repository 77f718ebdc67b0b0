"""The sdist and the wheel of the last commit in dist/: two builds give the same bytes; twine checks them.

Runs from `make dist`. The times in both files are that of the commit, or SOURCE_DATE_EPOCH.
"""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = "git", "archive", "HEAD", ":!results", ":!tests", ":!docs"


def build(target: Path, time: int) -> None:
    """Write both distributions of the last commit, from a folder that holds nothing else."""
    archive = subprocess.run(SOURCES, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(target)]
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(archive)) as sources:
        sources.extractall(folder, filter="data")
        environment = os.environ | {"SOURCE_DATE_EPOCH": str(time)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    (sdist,) = target.glob("*.tar.gz")
    normalise(sdist, time)


def normalise(sdist: Path, time: int) -> None:
    """Give all members one time, owner and order: setuptools writes those of the moment and the user."""
    packed = io.BytesIO()
    with tarfile.open(sdist) as old, tarfile.open(fileobj=packed, mode="w") as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = time, 0, 0, "", ""
            member.mode, member.pax_headers = 0o755 if member.isdir() or member.mode & 0o100 else 0o644, {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    sdist.write_bytes(gzip.compress(packed.getvalue(), mtime=time))


def main() -> None:
    """Build twice, compare, check, and leave the files in dist/."""
    committed = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, capture_output=True
    )
    time = int(os.environ.get("SOURCE_DATE_EPOCH") or committed.stdout)
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder, "first"), Path(folder, "second")
        for target in (first, second):
            build(target, time)
        files = sorted(first.iterdir())
        different = [file.name for file in files if file.read_bytes() != (second / file.name).read_bytes()]
        if different:
            sys.exit(f"two builds of one commit differ: {', '.join(different)}")
        subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, files)], check=True)
        shutil.rmtree(ROOT / "dist", ignore_errors=True)
        shutil.copytree(first, ROOT / "dist")
    for file in files:
        print(
            hashlib.sha256((ROOT / "dist" / file.name).read_bytes()).hexdigest(),
            f"dist/{file.name}",
            sep="  ",
        )


if __name__ == "__main__":
    main()
