"""VSLNet: span-based localisation of a query in a video (Zhang et al., ACL 2020)."""
