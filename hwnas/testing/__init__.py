"""What every plug-in of a folder must keep to, as tests that another package runs on its own; they need pytest.

A class for each folder takes only a fixture, the plug-in:

    class TestMine(hwnas.testing.SpaceContract):
        @pytest.fixture
        def space(self):
            return my_package.my_space

A device that is pretended needs no class of its own: see hwnas/device/transports/pretend.py.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
