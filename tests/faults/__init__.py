"""Scripts that inject faults into runs."""
