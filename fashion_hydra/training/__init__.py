"""The LightningModule, its schedule, trackers and callbacks."""
