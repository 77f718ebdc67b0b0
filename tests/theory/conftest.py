import pytest

from optim_family.theory.sphere import Scene


@pytest.fixture(scope="session")
def scene():
    """The scene of the sphere, which takes seconds to make."""
    return Scene.make()
