"""One small model of every family of torch, transformers, timm and torchvision: a module for each source."""
