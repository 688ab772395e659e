"""Named volumes and their drivers."""
