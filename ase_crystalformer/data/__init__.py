"""Labelled crystals: where they come from, how they are read, mixed and batched."""
