"""``python -m swe_cli``: the module that torchrun is given."""

from swe_cli.app import main

if __name__ == "__main__":
    main()
