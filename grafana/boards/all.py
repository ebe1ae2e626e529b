"""Every dashboard, in the order of a look around: first the fire, then the rest."""

from boards.fleet import fleet
from boards.gateway import gateway
from boards.gpu import gpu
from boards.host import host
from boards.serving import serving
from boards.slo import slo

BOARDS = (fleet(), serving(), gateway(), gpu(), host(), slo())
