from . import runner as runner
from .device import Device as Device
from .device import Setting as Setting
from .device import folders as folders
from .device import load_device as load_device
from .runner import Job as Job
from .runner import throttled as throttled
