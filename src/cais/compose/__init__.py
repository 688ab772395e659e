"""Compose files: model, plan, apply; through the client."""
