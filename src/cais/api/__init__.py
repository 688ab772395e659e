"""Docker Engine API routes, a module per swagger tag."""
