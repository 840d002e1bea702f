import sys

from pyhost.bench.command_line import main

if __name__ == '__main__':
    sys.exit(main())
