"""Numerical building blocks: special functions and quadrature in float64, to relative accuracy."""
