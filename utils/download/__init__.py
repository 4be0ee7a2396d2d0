"""Files from the net, whole, and archives unpacked."""
