"""Conformance suites per Protocol, fakes, and isolation for kernel tests."""
