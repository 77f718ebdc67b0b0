"""Figures of runs, studies and spectra, and the HTML around them; without torch."""
