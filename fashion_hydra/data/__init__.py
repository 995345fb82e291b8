"""Data: Kaggle's folder, splits, augmentation, loaders, and the embedded data set."""
