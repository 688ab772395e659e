"""Base images without a registry, made of a distribution's signed packages.

Each comes as an open docker-archive ready for ``load``. The same packages give the same image id,
wherever and whenever it is made; a lock file says which packages these are.
"""
