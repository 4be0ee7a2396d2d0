"""GroundNLQ, whole: windows from the points of a pyramid (Ego4D challenge winner 2023)."""
