"""The national model: what an outage costs at the country's size, and what would help.

The real guard, policy and custody plan decide; cryptography and disks are stood in for. Needs numpy (extra `simulations`).
"""
