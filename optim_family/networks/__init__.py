"""Networks: model cards, how timm backbones are adapted, and the proof of scale invariance."""
