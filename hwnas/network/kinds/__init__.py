"""Kinds of network, one file each: the walk from what was chosen to a graph of layers, and its JSON.

A kind is a module with
    read(value) -> Architecture       what `to_json` wrote, or a person in TOML; `kind` names the module
"""
