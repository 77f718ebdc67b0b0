"""`python -m benchmarks.gpu FOLDER`: run all parts on a CUDA card, each in a process of at most ten minutes.

A part that is done is not repeated: the command resumes after an interruption, and repeats parts that failed.
FOLDER/table.md has the numbers, FOLDER.tar.gz is what to send. --small --device cpu rehearses it in a minute.
"""

import argparse
import subprocess
import sys
import tarfile
from pathlib import Path

from benchmarks.gpu import parts, table


def run_part(name: str, folder: Path, device: str, small: bool, seconds: float) -> str:
    """Run one part in a new process; returns its state in a word."""
    result, log = folder / "parts" / f"{name}.json", folder / "logs" / f"{name}.txt"
    if result.exists():
        return "done before"
    command = [sys.executable, "-m", "benchmarks.gpu.parts", name, str(folder), device]
    command += ["--small"] * small + ["--seconds", str(seconds)]
    with log.open("w", encoding="utf-8") as output:
        try:
            code = subprocess.run(command, stdout=output, stderr=output, timeout=seconds).returncode
        except subprocess.TimeoutExpired:
            output.write(f"\nkilled after {seconds:g} seconds\n")
            return "too slow"
    return {0: "done", parts.NOT_FINISHED: "not finished"}.get(code, "failed")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N; cpu for a rehearsal")
    parser.add_argument("--small", action="store_true", help="tiny sizes, for a rehearsal")
    parser.add_argument("--seconds", type=float, default=600.0, help="at most, for each part")
    options = parser.parse_args(arguments)
    for name in ("parts", "logs"):
        (options.folder / name).mkdir(parents=True, exist_ok=True)
    states = {}
    for name in parts.names(options.small):
        states[name] = run_part(name, options.folder, options.device, options.small, options.seconds)
        print(f"{name}: {states[name]}", flush=True)
    (options.folder / "table.md").write_text(
        table.markdown(options.folder / "parts", states), encoding="utf-8"
    )
    archive = options.folder.with_name(options.folder.name + ".tar.gz")
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(options.folder, arcname=options.folder.name, filter=_without_images)
    print(f"table: {options.folder / 'table.md'}\nto send: {archive}")
    unfinished = [name for name, state in states.items() if not state.startswith("done")]
    if unfinished:
        print(f"unfinished: {', '.join(unfinished)}; the same command repeats them, logs/ says why")
    return int(bool(unfinished))


def _without_images(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if member.name.endswith(".npz") else member


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
