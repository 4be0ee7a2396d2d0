"""Predictions as challenge files, and what they are worth."""
