"""Simulated realms: the real node code on a simulated network, disk, clock and entropy."""
