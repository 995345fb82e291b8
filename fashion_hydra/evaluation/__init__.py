"""What predictions are worth: the competition score, COCO AP, kinds of errors, intervals."""
