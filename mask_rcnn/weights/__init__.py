"""Weights files: ours, the reference's and ImageNet's."""
