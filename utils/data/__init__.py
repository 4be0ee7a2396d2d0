"""Read annotations and narrations; prepare splits and read them as aligned columns."""
