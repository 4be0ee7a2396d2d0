"""ReLER, whole: multi-scale cross-modal localisation of a query in a video (Liu et al., 2022)."""
