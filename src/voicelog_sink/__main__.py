"""`python -m voicelog_sink` is `voicelog-sink`."""

import sys

from voicelog_sink.cli import main

sys.exit(main())
