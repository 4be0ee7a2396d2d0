"""HTML pages: predictions to look through, and a page that answers questions."""
