from .checks import check_reachable as check_reachable
from .checks import check_table as check_table
from .checks import check_writes as check_writes
from .checks import costs_of_run as costs_of_run
from .loop import Search as Search
from .loop import Searched as Searched
from .truth import LevelTruth as LevelTruth
from .truth import surrogate_truth as surrogate_truth
