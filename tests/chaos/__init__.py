"""Tries to break the promise: nothing lost, nothing done twice unknowingly."""
