"""Predictions as challenge files, and their scores."""
