"""What connects ledgers: reconciliation, transports, services of the roles, the FHIR edge, screens."""
