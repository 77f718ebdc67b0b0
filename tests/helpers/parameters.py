"""Parameters of a network."""


def trained(network):
    """Name → parameter, of those that require a gradient."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}
