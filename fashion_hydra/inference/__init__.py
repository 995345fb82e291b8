"""Models x views -> candidates."""
