"""NATS as one of the ways between nodes: subjects, links, local servers, and the generator of a topology."""
