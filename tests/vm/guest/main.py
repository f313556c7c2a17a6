"""All tests of a worker VM, in the order in which a host lives: installed, used, restarted, upgraded, limited, removed."""

import limits
import service
from harness import run_tests

run_tests(service.BEFORE + limits.TESTS + service.AFTER)
