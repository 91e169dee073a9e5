"""Surrogates, one file each: fitted on evaluated candidates, they predict the accuracy of others, with a spread."""
