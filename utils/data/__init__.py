"""Annotations and narrations in, prepared splits as aligned columns out."""
