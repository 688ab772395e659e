"""The use cases, a class per resource, and the state database."""
