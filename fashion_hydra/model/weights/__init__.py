"""Load weight files of several origins into a detector."""
