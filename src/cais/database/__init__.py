"""SQLite files whose commits survive a power cut, and whose loss a copy makes good."""

from cais.database.database import Database, has_database
from cais.database.reader import Reader

__all__ = ["Database", "Reader", "has_database"]
