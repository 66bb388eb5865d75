"""`python -m headrace.cli`, where the command is not on the path."""

from headrace.cli import main

if __name__ == "__main__":
    main()
