"""Doors to the outside: the server and the page."""
