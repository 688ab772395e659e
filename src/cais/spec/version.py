"""The version of this package: one constant, as asking the installed metadata costs 20 ms."""

VERSION = "0.1.0"
