"""Feature rows and token features: files as users have them, mapped stores, encoders."""
