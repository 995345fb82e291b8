"""The room that knows Hydra and OmegaConf."""
