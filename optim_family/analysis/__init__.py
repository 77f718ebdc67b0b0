"""Numbers out of runs: summaries, differences of paired seeds, claims and verdicts; without torch."""
