"""Read annotated data sets and assemble batches."""
