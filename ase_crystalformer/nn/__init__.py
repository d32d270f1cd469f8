"""Layers that know tensors and nothing about crystals."""
