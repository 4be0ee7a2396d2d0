"""What both models share: programs are verbs, library modules are nouns."""
