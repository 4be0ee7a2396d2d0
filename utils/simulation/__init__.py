"""A simulated Ego4D: videos, narrations, questions and features."""
