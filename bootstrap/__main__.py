"""What a Python runs first when it is handed ``swarmctl.pyz``: refuse an old one in words.

Written so that even Python 2 can read it; everything else is in ``swarmctl_boot``.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036  # the very Pythons that we do not support
    sys.exit("swarmctl needs CPython 3.10 or newer; this is Python " + sys.version.split()[0])

import swarmctl_boot

swarmctl_boot.main()
