"""Config schemas, entry points, and objects from options; the only room that imports Hydra and OmegaConf."""
