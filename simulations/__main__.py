"""`python -m simulations`: a seeded realm under partitions; exit 0 valid, 1 invalid."""

from simulations.world import main

if __name__ == "__main__":
    raise SystemExit(main())
