"""Hessian-vector products and spectra of any torch loss; knows no optimizer."""
