"""Estimators, one file each: from an architecture to its accuracy."""
