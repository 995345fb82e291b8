"""Weight files of several origins -> a detector."""
