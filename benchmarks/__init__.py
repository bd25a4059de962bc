"""Measurements, never tests: medians and ratios of one run on one machine."""
