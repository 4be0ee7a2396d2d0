"""One HTML page to look through predictions, queries and windows."""
