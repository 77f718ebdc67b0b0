"""Estimate the time of a step on many GPUs: the formula and the assumptions of docs/scaling.md.

Nothing here is measured; `python -m benchmarks world` measures.
"""

import math

D, BYTES, CHUNKS, SECONDS_A_CHUNK = 11_200_000, 4, 512, 20e-3
# Processes → bandwidth between neighbours in bytes a second, latency of a hop in seconds.
LINKS = {1: (math.inf, 0.0), 8: (200e9, 10e-6), 64: (25e9, 20e-6)}


def seconds(processes: int, bandwidth: float, latency: float) -> tuple[float, float]:
    """Seconds of computing, and of the all-reduce."""
    computing = math.ceil(CHUNKS / processes) * SECONDS_A_CHUNK
    sending = 2 * (processes - 1) / processes * D * BYTES / bandwidth + 2 * (processes - 1) * latency
    return computing, sending


def main() -> None:
    single = sum(seconds(1, *LINKS[1]))
    print("| GPUs | computing | all-reduce | speed-up | efficiency |\n|---|---|---|---|---|")
    for processes, link in LINKS.items():
        computing, sending = seconds(processes, *link)
        gain = single / (computing + sending)
        print(
            f"| {processes} | {computing:.3g} s | {1e3 * sending:.2g} ms | {gain:.1f} "
            f"| {gain / processes:.1%} |"
        )


if __name__ == "__main__":
    main()
