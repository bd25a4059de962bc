"""`python -m simulations`: see `simulations.swarm`."""

from simulations.swarm import main

raise SystemExit(main())
